"""From rows to arrays: the batcher, the graphs of a bundle, and ONNX Runtime, imported in one file."""
