"""clipmem: memorization in CLIP-style image-text models."""
