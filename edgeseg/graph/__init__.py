"""Read, understand and rewrite ONNX files, and lower them to the graphs that targets compile."""
