"""A typed ONNX turned into an engine, and the runners that execute either."""
