"""The OpenVINO extension: pooling with codes and unpooling on INT8 tensors, C++ built where there
is a compiler.

``unpooling.cpp`` needs no more than the headers in OpenVINO's own package. Without a compiler, and
for float tensors,
unpooling is done by standard operators, with the same result.
"""
