"""Designs, alignment scores, scores of pairs, and scores of models that exist already."""
