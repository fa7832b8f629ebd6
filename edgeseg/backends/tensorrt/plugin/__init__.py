"""Hold the TensorRT plugin: its CUDA C++ sources, and the code that builds and finds its library.

``src/unpooling.h`` and ``src/pictures.h`` define the work of one thread. nvcc compiles them for the
device, a host compiler for the tests. ``sources.txt`` lists the files of the library.
"""
