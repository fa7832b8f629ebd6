"""From a checkpoint to an ONNX file, and from any ONNX file to one a target can compile."""
