"""Passes that rewrite an ONNX graph."""
