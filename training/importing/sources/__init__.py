"""The readers of foreign models, one file a format."""
