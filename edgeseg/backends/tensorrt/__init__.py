"""The TensorRT targets: ``tensorrt`` (Jetson, desktop, server) and ``tensorrt-rtx`` (GeForce RTX, built ahead of time).

One code path for both and every version: a strongly typed network, precision in the graph alone. Neither library is
imported before it is needed.
"""
