"""What comes from strangers: the Hub, model folders, images, paths."""
