"""The readers of foreign models, one file per format."""
