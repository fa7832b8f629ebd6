"""Implement the TensorRT targets ``tensorrt`` and ``tensorrt-rtx``.

``tensorrt`` is for Jetson, desktop and server; ``tensorrt-rtx`` is for GeForce RTX, and is built
ahead of time. One code path serves both and every version: the network is strongly typed, and its
precision is only in the graph. Neither library is imported before it is needed.
"""
