"""Localize memorization in towers, layers and units, by hooks on unmodified models."""
