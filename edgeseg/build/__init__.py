"""From an ONNX file to a proven engine with its passport: the stage above the backends."""
