"""Protocols: from embeddings of targets and references to score tables, one file each."""
