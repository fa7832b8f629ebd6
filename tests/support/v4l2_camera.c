/* A UVC camera at /dev/video42, for programs that are started with this library in LD_PRELOAD.
 *
 * FAKE_CAMERA names a folder that controls it:
 *   unplugged     while this file exists, the device is not there: ENODEV, and ENOENT to open it.
 *   stalled       while this file exists, no frame comes.
 *   WxH.jpg       the frame of each size in MJPG.
 *   log           one line for each frame that was handed over: format, size, sequence number.
 *
 * The device's descriptor is a timer that ticks at the frame rate, so select and poll are the
 * system's own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/videodev2.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define DEVICE "/dev/video42"
#define BUFFERS 8
#define BUFFER_BYTES (1 << 20)

static const unsigned SIZES[][2] = {{640, 360}, {320, 180}};
static const unsigned FORMATS[] = {V4L2_PIX_FMT_YUYV, V4L2_PIX_FMT_MJPEG};

static int camera = -1;
static unsigned width = 640, height = 360, format = V4L2_PIX_FMT_YUYV, fps = 30;
static unsigned count, sequence;
static int queued[BUFFERS], waiting;
static unsigned char *memory[BUFFERS];

static void *next_symbol(const char *name) { return dlsym(RTLD_NEXT, name); }

static int has(const char *name) {
    static int (*real)(const char *, int);
    if (!real) real = next_symbol("access");
    char path[512];
    snprintf(path, sizeof path, "%s/%s", getenv("FAKE_CAMERA"), name);
    return real(path, F_OK) == 0;
}

static int is_device(const char *path) {
    return path && getenv("FAKE_CAMERA") && strcmp(path, DEVICE) == 0;
}

static int fail(int error) {
    errno = error;
    return -1;
}

/* --- the file system ------------------------------------------------------------------------- */

static int open_camera(void) {
    if (has("unplugged")) return fail(ENOENT);
    if (camera >= 0) return fail(EBUSY);
    camera = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    count = waiting = 0;
    return camera;
}

#define OPEN(name)                                                     \
    int name(const char *path, int flags, ...) {                       \
        static int (*real)(const char *, int, ...);                    \
        if (!real) real = next_symbol(#name);                          \
        va_list rest;                                                  \
        va_start(rest, flags);                                         \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                                                  \
        return is_device(path) ? open_camera() : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    static int (*real)(int);
    if (!real) real = next_symbol("close");
    if (fd >= 0 && fd == camera) camera = -1;
    return real(fd);
}

int access(const char *path, int mode) {
    static int (*real)(const char *, int);
    if (!real) real = next_symbol("access");
    if (!is_device(path)) return real(path, mode);
    return has("unplugged") ? fail(ENOENT) : 0;
}

#define STAT(name, type)                                               \
    int name(const char *restrict path, struct type *restrict facts) { \
        static int (*real)(const char *, struct type *);               \
        if (!real) real = next_symbol(#name);                          \
        if (!is_device(path)) return real(path, facts);                \
        if (has("unplugged")) return fail(ENOENT);                     \
        return real("/dev/null", facts);                               \
    }
STAT(stat, stat)
STAT(stat64, stat64)

#define FSTATAT(name, type)                                            \
    int name(int at, const char *restrict path, struct type *restrict facts, int flags) { \
        static int (*real)(int, const char *, struct type *, int);     \
        if (!real) real = next_symbol(#name);                          \
        if (!is_device(path)) return real(at, path, facts, flags);     \
        if (has("unplugged")) return fail(ENOENT);                     \
        return real(at, "/dev/null", facts, flags);                    \
    }
FSTATAT(fstatat, stat)
FSTATAT(fstatat64, stat64)

/* --- the memory of the buffers --------------------------------------------------------------- */

#define MMAP(name, offset_type)                                        \
    void *name(void *at, size_t length, int protection, int flags, int fd, offset_type offset) { \
        static void *(*real)(void *, size_t, int, int, int, offset_type); \
        if (!real) real = next_symbol(#name);                          \
        if (fd < 0 || fd != camera) return real(at, length, protection, flags, fd, offset); \
        unsigned index = (unsigned)offset / BUFFER_BYTES;              \
        void *made = real(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); \
        if (index < BUFFERS) memory[index] = made;                     \
        return made;                                                   \
    }
MMAP(mmap, off_t)
MMAP(mmap64, off64_t)

/* --- frames ---------------------------------------------------------------------------------- */

static size_t fill(unsigned char *buffer) {
    char path[512];
    snprintf(path, sizeof path, "%s/%ux%u.jpg", getenv("FAKE_CAMERA"), width, height);
    if (format == V4L2_PIX_FMT_MJPEG) {
        FILE *file = fopen(path, "rb");
        size_t bytes = file ? fread(buffer, 1, BUFFER_BYTES, file) : 0;
        if (file) fclose(file);
        return bytes;
    }
    /* Grey, and brighter with each frame. */
    for (size_t i = 0; i < 2 * width * height; i += 2) {
        buffer[i] = 40 + sequence % 160;
        buffer[i + 1] = 128;
    }
    return 2 * width * height;
}

static void note(void) {
    char path[512];
    snprintf(path, sizeof path, "%s/log", getenv("FAKE_CAMERA"));
    FILE *file = fopen(path, "a");
    if (!file) return;
    fprintf(file, "%.4s %ux%u %u\n", (char *)&format, width, height, sequence);
    fclose(file);
}

static int hand_over(struct v4l2_buffer *buffer) {
    uint64_t ticks;
    if (read(camera, &ticks, sizeof ticks) != sizeof ticks || has("stalled") || !waiting)
        return fail(EAGAIN);

    /* A frame for which no buffer waited is lost: the sequence number tells. */
    sequence += ticks;
    unsigned index = queued[0];
    memmove(queued, queued + 1, --waiting * sizeof *queued);

    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    buffer->index = index;
    buffer->bytesused = fill(memory[index]);
    buffer->length = BUFFER_BYTES;
    buffer->sequence = sequence;
    buffer->field = V4L2_FIELD_NONE;
    buffer->flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC | V4L2_BUF_FLAG_MAPPED;
    buffer->timestamp.tv_sec = now.tv_sec;
    buffer->timestamp.tv_usec = now.tv_nsec / 1000;
    note();
    return 0;
}

static void run(unsigned rate) {
    struct itimerspec ticks = {{0, 0}, {0, 0}};
    if (rate) ticks.it_value.tv_nsec = ticks.it_interval.tv_nsec = 1000000000 / rate;
    timerfd_settime(camera, 0, &ticks, NULL);
}

/* --- the requests of V4L2 -------------------------------------------------------------------- */

static void describe(struct v4l2_pix_format *pixels) {
    memset(pixels, 0, sizeof *pixels);
    pixels->width = width;
    pixels->height = height;
    pixels->pixelformat = format;
    pixels->field = V4L2_FIELD_NONE;
    pixels->bytesperline = format == V4L2_PIX_FMT_YUYV ? 2 * width : 0;
    pixels->sizeimage = BUFFER_BYTES;
    pixels->colorspace = V4L2_COLORSPACE_SRGB;
}

static void choose(const struct v4l2_pix_format *wanted) {
    format = V4L2_PIX_FMT_YUYV;
    for (size_t i = 0; i < sizeof FORMATS / sizeof *FORMATS; i++)
        if (FORMATS[i] == wanted->pixelformat) format = FORMATS[i];

    /* The largest size within what is wanted; the last is the smallest. */
    size_t last = sizeof SIZES / sizeof *SIZES - 1, i = 0;
    while (i < last && (SIZES[i][0] > wanted->width || SIZES[i][1] > wanted->height)) i++;
    width = SIZES[i][0];
    height = SIZES[i][1];
}

static int answer(unsigned long request, void *data) {
    if (has("unplugged")) return fail(ENODEV);
    switch (request) {
    case VIDIOC_QUERYCAP: {
        struct v4l2_capability *facts = data;
        memset(facts, 0, sizeof *facts);
        strcpy((char *)facts->driver, "uvcvideo");
        strcpy((char *)facts->card, "Fake camera");
        facts->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
        facts->capabilities = facts->device_caps | V4L2_CAP_DEVICE_CAPS;
        return 0;
    }
    case VIDIOC_ENUMINPUT: {
        struct v4l2_input *input = data;
        if (input->index) return fail(EINVAL);
        input->type = V4L2_INPUT_TYPE_CAMERA;
        return 0;
    }
    case VIDIOC_G_INPUT:
        *(int *)data = 0;
        return 0;
    case VIDIOC_S_INPUT:
        return *(int *)data ? fail(EINVAL) : 0;
    case VIDIOC_S_FMT:
        if (count) return fail(EBUSY);
        choose(&((struct v4l2_format *)data)->fmt.pix);
        /* fall through */
    case VIDIOC_G_FMT:
        if (((struct v4l2_format *)data)->type != V4L2_BUF_TYPE_VIDEO_CAPTURE) return fail(EINVAL);
        describe(&((struct v4l2_format *)data)->fmt.pix);
        return 0;
    case VIDIOC_S_PARM: {
        struct v4l2_fract *tick = &((struct v4l2_streamparm *)data)->parm.capture.timeperframe;
        if (tick->numerator && tick->denominator) fps = tick->denominator / tick->numerator;
        if (!fps || fps > 60) fps = 30;
    }
        /* fall through */
    case VIDIOC_G_PARM: {
        struct v4l2_captureparm *rate = &((struct v4l2_streamparm *)data)->parm.capture;
        rate->capability = V4L2_CAP_TIMEPERFRAME;
        rate->timeperframe.numerator = 1;
        rate->timeperframe.denominator = fps;
        return 0;
    }
    case VIDIOC_REQBUFS: {
        struct v4l2_requestbuffers *wanted = data;
        if (wanted->count > BUFFERS) wanted->count = BUFFERS;
        count = wanted->count;
        waiting = 0;
        return 0;
    }
    case VIDIOC_QUERYBUF: {
        struct v4l2_buffer *buffer = data;
        if (buffer->index >= count) return fail(EINVAL);
        buffer->length = BUFFER_BYTES;
        buffer->m.offset = buffer->index * BUFFER_BYTES;
        return 0;
    }
    case VIDIOC_QBUF: {
        struct v4l2_buffer *buffer = data;
        if (buffer->index >= count || waiting >= BUFFERS) return fail(EINVAL);
        queued[waiting++] = buffer->index;
        return 0;
    }
    case VIDIOC_DQBUF:
        return hand_over(data);
    case VIDIOC_STREAMON:
        run(fps);
        return 0;
    case VIDIOC_STREAMOFF:
        run(0);
        waiting = 0;
        return 0;
    default:
        return fail(ENOTTY);
    }
}

int ioctl(int fd, unsigned long request, ...) {
    static int (*real)(int, unsigned long, void *);
    if (!real) real = next_symbol("ioctl");
    va_list rest;
    va_start(rest, request);
    void *data = va_arg(rest, void *);
    va_end(rest);
    /* Requests are 32 bits; some callers extend their sign. */
    return fd >= 0 && fd == camera ? answer((uint32_t)request, data) : real(fd, request, data);
}
