"""Figures and tables: one kind to a file, each with a function that computes and one that draws."""
