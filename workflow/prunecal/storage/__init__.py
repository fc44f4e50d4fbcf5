"""Files that are whole or absent, with their checksums and metadata."""
