"""Untrusted input: the Hub, model folders, images, paths."""
