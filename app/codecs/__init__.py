"""Bytes to arrays and back: images, npy, tensors, safetensors."""
