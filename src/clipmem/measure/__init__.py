"""Utility of models on unseen pairs, and Déjà Vu memorization."""
