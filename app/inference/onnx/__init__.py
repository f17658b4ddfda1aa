"""What the server reads in an ONNX file, and adds to it, without the library onnx."""
