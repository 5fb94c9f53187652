"""Utility of the models: what they can do with pairs that nobody trained on."""
