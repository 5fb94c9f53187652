"""Formulas of scores, and their statistics."""
