"""ONNX files: read, understood, rewritten and lowered to what a target compiles."""
