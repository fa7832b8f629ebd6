"""Export PyTorch models to ONNX: edgeseg's own checkpoints, and modules of a user."""
