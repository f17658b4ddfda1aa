"""The operations on a model, one file each."""
