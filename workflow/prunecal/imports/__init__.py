"""Answers from elsewhere: rows of files as cells, whatever made them."""
