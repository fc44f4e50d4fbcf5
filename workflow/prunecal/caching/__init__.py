"""Decide whether something is computed again: fingerprints of code, the store of finished cells."""
