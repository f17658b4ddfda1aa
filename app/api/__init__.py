"""The HTTP surface: one file an endpoint family, its request and response models beside it."""
