"""Recipes that train a model from scratch: one file each (see prunecal.core.plugins)."""
