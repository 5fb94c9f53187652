"""Pairs and images: sources (one file a format), decoding, the pixel cache, splits, duplicates, views."""
