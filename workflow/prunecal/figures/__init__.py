"""Figures: one kind per file, each with a function that computes and one that draws."""
