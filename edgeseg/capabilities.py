"""Name what an engine may be able to do, beside labelling frames of any size one by one.

``Engine.capabilities`` holds some of these names. A caller asks for a name before it uses the
method behind it: ``if PAINT in engine.capabilities``.
"""

BATCH = "batch"  # labels several frames of a batch in one run
LOGITS = "logits"  # `logits(frame)` returns logits
SIZES = "sizes"  # runs frames of a range of sizes as they are; other frames are resized
ANY_SIZE = "any size"  # resizes frames of any size on the device
NV12 = "nv12"  # reads an `Nv12` itself; other engines have it converted to BGR
PAINT = "paint"  # `paint(frame, alpha)` also returns the picture
STREAMS = "streams"  # `stream(frames)` overlaps the copies of one frame with the run of another
DEVICE_ARRAYS = "device arrays"  # `on_device(array)` takes and returns arrays on the device
