"""The TensorRT plugin: CUDA C++ sources, and what builds and finds the library made of them.

``src/unpooling.h`` and ``src/pictures.h`` hold what a thread does. nvcc compiles them for the device, a host compiler
for the tests. ``sources.txt`` is the list of what goes into the library.
"""
