"""What every other room uses: errors, the command line, redaction, settings, plug-in look-up."""
