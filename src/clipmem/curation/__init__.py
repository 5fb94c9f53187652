"""Ranks of pairs by how likely their captions are mismatched."""
