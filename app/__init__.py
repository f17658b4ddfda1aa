"""A REST inference server for variational autoencoders. Needs no torch."""

__version__ = "0.1.0"
