"""Offline training: from a recipe and a data set to a bundle. Only this package uses torch."""
