"""Edits that turn foreign ONNX graphs into a bundle's."""
