"""Nets handed to NVIDIA servers: Triton and DeepStream."""
