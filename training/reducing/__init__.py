"""Bundles whose graphs have smaller weights: made of a bundle's own, measured beside them, and refused if they harm."""
