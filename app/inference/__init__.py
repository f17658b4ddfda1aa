"""From rows to arrays: the batcher, the graphs of a bundle, and ONNX Runtime behind one door."""
