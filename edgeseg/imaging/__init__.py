"""Pixels to tensors and back: the only place that resizes, normalises and paints."""
