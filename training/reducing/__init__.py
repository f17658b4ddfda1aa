"""Bundles with smaller weights, made from other bundles. They are refused if they change results too much."""
