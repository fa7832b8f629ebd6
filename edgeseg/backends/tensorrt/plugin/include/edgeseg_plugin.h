/* The plain C face of libedgeseg_plugin.so: who it is, and what stands before and after an engine on the device.

   Pointers to pictures, scores, labels and palettes are device pointers; the structs themselves are read on the host
   before a call returns. A call only enqueues work on `stream` (a cudaStream_t). It returns 0, a negative number for an
   argument that does not fit (EDGESEG_BAD_ARGUMENT), or the positive cudaError_t of the launch. */
#ifndef EDGESEG_PLUGIN_H
#define EDGESEG_PLUGIN_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Changes whenever a struct or a function of this header does. */
#define EDGESEG_PLUGIN_ABI 2
#define EDGESEG_BAD_ARGUMENT (-1)

/* EDGESEG_PLUGIN_ABI of the library. */
int edgeseg_plugin_version(void);

/* What it was built with, such as "abi=2 tensorrt=10.3.0 cuda=12.6". */
const char* edgeseg_plugin_build(void);

enum { EDGESEG_BGR = 0, EDGESEG_NV12 = 1 };       /* edgeseg_frame.kind */
enum { EDGESEG_BT601 = 0, EDGESEG_BT709 = 1 };    /* edgeseg_frame.matrix */
enum { EDGESEG_BILINEAR = 0, EDGESEG_AREA = 1, EDGESEG_AS_PYTHON = 2 }; /* edgeseg_input.resize */

/* A picture. BGR: plane is (height, width, 3) uint8. NV12: plane is the luma, (height, width) uint8; chroma is
   (ceil(height / 2), ceil(width / 2), 2) uint8, U then V. A pitch is the distance of two rows in bytes. */
typedef struct {
    int32_t kind, height, width;
    int32_t matrix, full_range; /* NV12 only */
    const void* plane;
    int64_t pitch;
    const void* chroma;
    int64_t chroma_pitch;
} edgeseg_frame;

/* A net's input, (3, height, width) float or half: gain * pixel + offset a channel, both in the net's channel order, on
   the frame resized and rounded to whole grey levels. EDGESEG_AS_PYTHON is what edgeseg/imaging/preprocess.py does: the area's
   mean where neither side grows, bilinear otherwise. */
typedef struct {
    int32_t height, width;
    int32_t is_half, is_rgb, resize;
    float gain[3], offset[3];
} edgeseg_input;

/* Colours over a frame. palette is (256, 4) uint8: B, G, R, and whether pixels of that id are painted (0: they stay the
   frame's). picture is (height, width, 3) uint8, BGR, and may be a BGR frame itself. labels_out is (height, width) uint8,
   without padding. Either output may be null; without a picture, of the frame only the size is looked at. */
typedef struct {
    edgeseg_frame frame;
    void* picture;
    int64_t picture_pitch;
    const void* palette;
    double alpha; /* weight of the colours, 0 to 1 */
    void* labels_out;
} edgeseg_overlay;

int edgeseg_preprocess(const edgeseg_frame* frame, const edgeseg_input* input, void* out, void* stream);

/* scores: (classes, height, width) float or half, of any size; a frame's pixel takes the class with the first maximum
   at the nearest score (pixel centres; the right or lower of two equally near). At most 256 classes. */
int edgeseg_overlay_scores(const void* scores, int32_t is_half, int32_t classes, int32_t height, int32_t width,
                           const edgeseg_overlay* overlay, void* stream);

/* labels: (height, width) uint8, of any size. */
int edgeseg_overlay_labels(const void* labels, int32_t height, int32_t width, const edgeseg_overlay* overlay,
                           void* stream);

#ifdef __cplusplus
}
#endif
#endif
