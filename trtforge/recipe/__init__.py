"""What to build, as pure data: no ONNX, no TensorRT, nothing about this machine."""
