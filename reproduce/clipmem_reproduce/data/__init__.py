"""Builders of data sets that are not shipped: photographs, and the images of a manual with their alt texts."""
