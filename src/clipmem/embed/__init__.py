"""Encoder passes: images and captions to arrays on disk, once for each model."""
