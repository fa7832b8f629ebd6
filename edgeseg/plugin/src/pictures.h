// Frames to a net's input, and scores or labels to a picture: what one thread does, and the checks of the C functions.
// The arithmetic is that of edgeseg/preprocess.py and edgeseg/postprocess.py.
#pragma once

#include "edgeseg_plugin.h"
#include "portable.h"

namespace edgeseg {

struct Pixel {
    float b, g, r;
};

// The nearest whole grey level; of two, the even one, as OpenCV rounds blends and colours.
EDGESEG_HD float grey_level(float x) { return rintf(x < 0.f ? 0.f : x > 255.f ? 255.f : x); }

struct BgrFrame {
    const std::uint8_t* pixels;
    std::int64_t pitch;

    EDGESEG_HD Pixel at(std::int32_t y, std::int32_t x) const
    {
        const std::uint8_t* p = pixels + y * pitch + 3 * static_cast<std::int64_t>(x);
        return {static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2])};
    }
};

// ITU-R BT.601 and BT.709, by their luma weights of red and blue. Chroma is that of the 2x2 block, not interpolated.
struct Nv12Frame {
    const std::uint8_t* luma;
    std::int64_t luma_pitch;
    const std::uint8_t* chroma;
    std::int64_t chroma_pitch;
    float black, y_gain, r_v, g_u, g_v, b_u;

    static Nv12Frame of(const edgeseg_frame& f)
    {
        const double red = f.matrix == EDGESEG_BT709 ? 0.2126 : 0.299;
        const double blue = f.matrix == EDGESEG_BT709 ? 0.0722 : 0.114;
        const double green = 1.0 - red - blue;
        const double y_gain = f.full_range ? 1.0 : 255.0 / 219.0, c_gain = f.full_range ? 1.0 : 255.0 / 224.0;
        return {static_cast<const std::uint8_t*>(f.plane), f.pitch, static_cast<const std::uint8_t*>(f.chroma),
                f.chroma_pitch, f.full_range ? 0.f : 16.f, static_cast<float>(y_gain),
                static_cast<float>(c_gain * 2.0 * (1.0 - red)),
                static_cast<float>(-c_gain * 2.0 * (1.0 - blue) * blue / green),
                static_cast<float>(-c_gain * 2.0 * (1.0 - red) * red / green),
                static_cast<float>(c_gain * 2.0 * (1.0 - blue))};
    }

    EDGESEG_HD Pixel at(std::int32_t y, std::int32_t x) const
    {
        const std::uint8_t* uv = chroma + (y / 2) * chroma_pitch + x / 2 * 2;
        const float above = static_cast<float>(luma[y * luma_pitch + x]) - black;
        const float grey = (above < 0.f ? 0.f : above) * y_gain;  // as OpenCV: nothing is blacker than black
        const float u = static_cast<float>(uv[0]) - 128.f, v = static_cast<float>(uv[1]) - 128.f;
        return {grey_level(grey + b_u * u), grey_level(grey + g_u * u + g_v * v), grey_level(grey + r_v * v)};
    }
};

// One axis of a resize by half-pixel centres: the two neighbours, and the weight of the second. In float, as OpenCV: a
// device's doubles are slow, and a coordinate's error is far below a grey level.
struct Tap {
    std::int32_t low, high;
    float weight;

    EDGESEG_HD static Tap bilinear(std::int32_t i, std::int32_t from, float scale)
    {
        const float centre = (static_cast<float>(i) + 0.5f) * scale - 0.5f, floor = floorf(centre);
        const auto low = static_cast<std::int32_t>(floor);
        if (low < 0) return {0, 0, 0.f};
        if (low >= from - 1) return {from - 1, from - 1, 0.f};
        return {low, low + 1, centre - floor};
    }
};

// How much of [begin, end) source pixel j covers.
EDGESEG_HD float covered(std::int32_t j, float begin, float end)
{
    const float left = static_cast<float>(j), right = left + 1.f;
    const float low = begin > left ? begin : left, high = end < right ? end : right;
    return high > low ? high - low : 0.f;
}

// A thread makes one pixel of the input, three channels. Halves are rounded up, as OpenCV's resizes of bytes do.
template <class Frame, class T>
struct Preprocess {
    Frame frame;
    T* out;
    std::int32_t frame_height, frame_width, width;
    std::int64_t plane;    // pixels of a channel
    float tall, wide;      // frame pixels an input pixel
    bool area, rgb;
    float gain[3], offset[3];

    EDGESEG_HD void operator()(std::uint32_t item) const
    {
        const auto y = static_cast<std::int32_t>(item / static_cast<std::uint32_t>(width));
        const auto x = static_cast<std::int32_t>(item % static_cast<std::uint32_t>(width));
        const Pixel p = area ? mean(y, x) : between(y, x);
        const float channels[3] = {rgb ? p.r : p.b, p.g, rgb ? p.b : p.r};
        for (int c = 0; c < 3; ++c) from_float(floorf(channels[c] + 0.5f) * gain[c] + offset[c], out[c * plane + item]);
    }

    EDGESEG_HD Pixel between(std::int32_t y, std::int32_t x) const
    {
        const Tap v = Tap::bilinear(y, frame_height, tall), h = Tap::bilinear(x, frame_width, wide);
        const Pixel a = frame.at(v.low, h.low), b = frame.at(v.low, h.high);
        const Pixel c = frame.at(v.high, h.low), d = frame.at(v.high, h.high);
        return {mix(a.b, b.b, c.b, d.b, v.weight, h.weight), mix(a.g, b.g, c.g, d.g, v.weight, h.weight),
                mix(a.r, b.r, c.r, d.r, v.weight, h.weight)};
    }

    EDGESEG_HD static float mix(float a, float b, float c, float d, float down, float right)
    {
        const float top = a + (b - a) * right, bottom = c + (d - c) * right;
        return top + (bottom - top) * down;
    }

    EDGESEG_HD Pixel mean(std::int32_t y, std::int32_t x) const
    {
        const float top = static_cast<float>(y) * tall, bottom = static_cast<float>(y + 1) * tall;
        const float left = static_cast<float>(x) * wide, right = static_cast<float>(x + 1) * wide;
        Pixel sum{0.f, 0.f, 0.f};
        float total = 0.f;
        for (auto j = static_cast<std::int32_t>(top); j < frame_height && static_cast<float>(j) < bottom; ++j) {
            const float rows = covered(j, top, bottom);
            for (auto i = static_cast<std::int32_t>(left); i < frame_width && static_cast<float>(i) < right; ++i) {
                const float part = rows * covered(i, left, right);
                const Pixel p = frame.at(j, i);
                sum.b += part * p.b, sum.g += part * p.g, sum.r += part * p.r;
                total += part;
            }
        }
        return {sum.b / total, sum.g / total, sum.r / total};
    }
};

// The class with the first maximum; NaN counts as a maximum, as in NumPy.
template <class T>
struct ArgmaxOf {
    const T* scores;
    std::int32_t classes, height, width;

    EDGESEG_HD std::uint8_t at(std::int32_t y, std::int32_t x) const
    {
        const std::int64_t plane = static_cast<std::int64_t>(height) * width;
        const T* score = scores + static_cast<std::int64_t>(y) * width + x;
        float best = to_float(*score);
        std::int32_t label = 0;
        for (std::int32_t c = 1; c < classes; ++c) {
            const float next = to_float(score[c * plane]);
            if (next > best || (is_nan(next) && !is_nan(best))) best = next, label = c;
        }
        return static_cast<std::uint8_t>(label);
    }
};

struct LabelsOf {
    const std::uint8_t* labels;
    std::int32_t height, width;

    EDGESEG_HD std::uint8_t at(std::int32_t y, std::int32_t x) const
    {
        return labels[static_cast<std::int64_t>(y) * width + x];
    }
};

// A thread makes up to four neighbours of a row: where rows are aligned (`wide`), three words of the picture.
template <class Labels>
struct Overlay {
    static constexpr std::int32_t group = 4;

    Labels labels;
    std::int32_t height, width, groups;  // groups of a row
    bool wide, wide_labels, wide_palette;
    const std::uint8_t* frame;
    std::int64_t pitch;
    std::uint8_t* picture;
    std::int64_t picture_pitch;
    const std::uint8_t* palette;
    std::uint8_t* labels_out;
    float frame_weight, colour_weight;

    EDGESEG_HD void operator()(std::uint32_t item) const
    {
        const auto y = static_cast<std::int32_t>(item / static_cast<std::uint32_t>(groups));
        const auto x = group * static_cast<std::int32_t>(item % static_cast<std::uint32_t>(groups));
        const std::int32_t count = width - x < group ? width - x : group;
        const std::uint32_t ids = labels_of(y, x, count);
        if (labels_out != nullptr) {
            std::uint8_t* to = labels_out + static_cast<std::int64_t>(y) * width + x;
            if (wide_labels) {
                store<4>(to, Pack<4>{{ids}});
            } else {
                for (int i = 0; i < count; ++i) to[i] = static_cast<std::uint8_t>(ids >> (8 * i));
            }
        }
        if (picture == nullptr) return;
        const std::uint8_t* from = frame + y * pitch + 3 * static_cast<std::int64_t>(x);
        std::uint8_t* to = picture + y * picture_pitch + 3 * static_cast<std::int64_t>(x);
        if (wide && count == group) {
            std::uint32_t in[3], out[3] = {};
            for (int word = 0; word < 3; ++word) in[word] = load<4>(from + 4 * word).word[0];
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
            for (int pixel = 0; pixel < group; ++pixel) {  // unrolled, so that words stay in registers
                const std::uint32_t colour = colour_of(ids >> (8 * pixel));
                for (int byte = 3 * pixel; byte < 3 * pixel + 3; ++byte) {
                    const std::uint32_t old = (in[byte / 4] >> (8 * (byte % 4))) & 0xffu;
                    out[byte / 4] |= blended(old, colour, byte % 3) << (8 * (byte % 4));
                }
            }
            for (int word = 0; word < 3; ++word) store<4>(to + 4 * word, Pack<4>{{out[word]}});
            return;
        }
        for (int pixel = 0; pixel < count; ++pixel) {
            const std::uint32_t colour = colour_of(ids >> (8 * pixel));
            for (int byte = 3 * pixel; byte < 3 * pixel + 3; ++byte) {
                to[byte] = static_cast<std::uint8_t>(blended(from[byte], colour, byte % 3));
            }
        }
    }

    // The labels of `count` pixels from (y, x) on, one a byte. Where the picture is larger than the scores, neighbours
    // share one, and it is looked for once.
    EDGESEG_HD std::uint32_t labels_of(std::int32_t y, std::int32_t x, std::int32_t count) const
    {
        const std::int32_t row = nearest(y, labels.height, height);
        std::uint32_t ids = 0, label = 0;
        std::int32_t last = -1;
        for (int i = 0; i < count; ++i) {
            const std::int32_t column = nearest(x + i, labels.width, width);
            if (column != last) label = labels.at(row, column), last = column;
            ids |= label << (8 * i);
        }
        return ids;
    }

    // The palette's four bytes for the lowest byte of `ids`.
    EDGESEG_HD std::uint32_t colour_of(std::uint32_t ids) const
    {
        const std::uint8_t* at = palette + 4 * (ids & 0xffu);
        if (wide_palette) return load<4>(at).word[0];
        return at[0] | static_cast<std::uint32_t>(at[1]) << 8 | static_cast<std::uint32_t>(at[2]) << 16 |
               static_cast<std::uint32_t>(at[3]) << 24;
    }

    EDGESEG_HD std::uint32_t blended(std::uint32_t pixel, std::uint32_t colour, int channel) const
    {
        const auto level = static_cast<float>((colour >> (8 * channel)) & 0xffu);
        const float mixed = static_cast<float>(pixel) * frame_weight + level * colour_weight;
        return colour >> 24 ? static_cast<std::uint32_t>(grey_level(mixed)) : pixel;
    }

    // Source pixel that pixel centre i falls into; the right or lower one where it falls between two. Sides are below
    // 2^15, so 32 bits hold the product; a device has no instruction to divide 64.
    EDGESEG_HD static std::int32_t nearest(std::int32_t i, std::int32_t from, std::int32_t to)
    {
        const auto centre = 2 * static_cast<std::uint32_t>(i) + 1;
        return static_cast<std::int32_t>(centre * static_cast<std::uint32_t>(from) / (2 * static_cast<std::uint32_t>(to)));
    }
};

namespace detail {

constexpr std::int32_t max_side = 32767;  // so that the number of a picture's pixels is an int32

inline bool is_size(std::int32_t height, std::int32_t width)
{
    return height > 0 && width > 0 && height <= max_side && width <= max_side;
}

inline bool is_word(const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 4 == 0; }

inline bool is_frame(const edgeseg_frame& f)
{
    if (!is_size(f.height, f.width) || f.plane == nullptr) return false;
    if (f.kind == EDGESEG_BGR) return f.pitch >= 3 * static_cast<std::int64_t>(f.width);
    const bool is_matrix = f.matrix == EDGESEG_BT601 || f.matrix == EDGESEG_BT709;
    return f.kind == EDGESEG_NV12 && is_matrix && f.chroma != nullptr && f.pitch >= f.width &&
           f.chroma_pitch >= (f.width + 1) / 2 * 2;
}

template <class T, class Frame, class Runner>
int preprocess(const edgeseg_frame& f, const Frame& frame, const edgeseg_input& in, void* out, Runner& run)
{
    const bool shrinks = f.height >= in.height && f.width >= in.width;
    const bool same = f.height == in.height && f.width == in.width;
    Preprocess<Frame, T> body{frame, static_cast<T*>(out), f.height, f.width, in.width,
                              static_cast<std::int64_t>(in.height) * in.width,
                              static_cast<float>(static_cast<double>(f.height) / in.height),
                              static_cast<float>(static_cast<double>(f.width) / in.width),
                              !same && (in.resize == EDGESEG_AREA || (in.resize == EDGESEG_AS_PYTHON && shrinks)),
                              in.is_rgb != 0, {}, {}};
    for (int c = 0; c < 3; ++c) body.gain[c] = in.gain[c], body.offset[c] = in.offset[c];
    return run(body, static_cast<std::uint32_t>(in.height) * static_cast<std::uint32_t>(in.width));
}

template <class Labels, class Runner>
int overlay(const Labels& labels, const edgeseg_overlay* o, Runner& run)
{
    constexpr int bad = EDGESEG_BAD_ARGUMENT;
    if (o == nullptr || !is_size(o->height, o->width) || !is_size(labels.height, labels.width)) return bad;
    if (!(o->alpha >= 0.0 && o->alpha <= 1.0) || (o->picture == nullptr && o->labels_out == nullptr)) return bad;
    const std::int64_t row = 3 * static_cast<std::int64_t>(o->width);
    if (o->picture != nullptr && (o->frame == nullptr || o->palette == nullptr)) return bad;
    if (o->picture != nullptr && (o->pitch < row || o->picture_pitch < row)) return bad;
    const std::int32_t groups = (o->width + Overlay<Labels>::group - 1) / Overlay<Labels>::group;
    const bool wide = is_word(o->frame) && is_word(o->picture) && (o->pitch | o->picture_pitch) % 4 == 0;
    const Overlay<Labels> body{labels, o->height, o->width, groups, wide, is_word(o->labels_out) && o->width % 4 == 0,
                               is_word(o->palette),
                               static_cast<const std::uint8_t*>(o->frame), o->pitch,
                               static_cast<std::uint8_t*>(o->picture), o->picture_pitch,
                               static_cast<const std::uint8_t*>(o->palette), static_cast<std::uint8_t*>(o->labels_out),
                               static_cast<float>(1.0 - o->alpha), static_cast<float>(o->alpha)};
    return run(body, static_cast<std::uint32_t>(o->height) * static_cast<std::uint32_t>(groups));
}

}  // namespace detail

// The C functions of edgeseg_plugin.h with `run(body, items)` for the stream.
template <class Runner>
int preprocess(const edgeseg_frame* f, const edgeseg_input* in, void* out, Runner&& run)
{
    if (f == nullptr || in == nullptr || out == nullptr || !detail::is_frame(*f)) return EDGESEG_BAD_ARGUMENT;
    if (!detail::is_size(in->height, in->width) || in->resize < EDGESEG_BILINEAR || in->resize > EDGESEG_AS_PYTHON) {
        return EDGESEG_BAD_ARGUMENT;
    }
    const auto go = [&](const auto& frame) {
        return in->is_half ? detail::preprocess<Half>(*f, frame, *in, out, run)
                           : detail::preprocess<float>(*f, frame, *in, out, run);
    };
    if (f->kind == EDGESEG_BGR) return go(BgrFrame{static_cast<const std::uint8_t*>(f->plane), f->pitch});
    return go(Nv12Frame::of(*f));
}

template <class Runner>
int overlay_scores(const void* scores, bool is_half, std::int32_t classes, std::int32_t height, std::int32_t width,
                   const edgeseg_overlay* o, Runner&& run)
{
    if (scores == nullptr || classes < 1 || classes > 256) return EDGESEG_BAD_ARGUMENT;
    if (is_half) return detail::overlay(ArgmaxOf<Half>{static_cast<const Half*>(scores), classes, height, width}, o, run);
    return detail::overlay(ArgmaxOf<float>{static_cast<const float*>(scores), classes, height, width}, o, run);
}

template <class Runner>
int overlay_labels(const void* labels, std::int32_t height, std::int32_t width, const edgeseg_overlay* o, Runner&& run)
{
    if (labels == nullptr) return EDGESEG_BAD_ARGUMENT;
    return detail::overlay(LabelsOf{static_cast<const std::uint8_t*>(labels), height, width}, o, run);
}

}  // namespace edgeseg
