"""Reproduce the published experiments on memorization in CLIP with clipmem, and test their findings."""
