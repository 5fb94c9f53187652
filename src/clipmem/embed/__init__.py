"""Encoder passes: pictures and captions to arrays on disk, once for each model."""
