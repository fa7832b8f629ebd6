"""The OpenVINO extension: pooling with codes, and unpooling, on INT8 tensors.

It is C++ and is built if this machine has a compiler. ``unpooling.cpp`` needs no more than the
headers in OpenVINO's own package. Without a compiler, and for float tensors, standard operators do
the unpooling, with the same result.
"""
