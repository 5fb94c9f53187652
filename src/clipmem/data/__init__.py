"""Pairs and images: sources (one file per format), decoding, the pixel cache, splits, duplicates, views."""
