"""Designs, alignment scores, estimators, and scores of models that exist already."""
