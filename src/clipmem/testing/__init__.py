"""Test helpers: tiny studies, and slow reference implementations of the score."""
