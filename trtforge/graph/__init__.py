"""ONNX in, ONNX out: load and save, clean-up, fusion, and the proof that the function stayed."""
