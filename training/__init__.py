"""Offline training: from a recipe and a data set to a bundle. torch lives only in this package."""
