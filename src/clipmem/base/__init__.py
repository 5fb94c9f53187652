"""Foundations: errors, seeded random streams, recipes, registries. Imports no torch and opens no files."""
