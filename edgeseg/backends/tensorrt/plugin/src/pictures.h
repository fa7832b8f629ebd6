// Frames to a net's input, and scores or labels to a picture: what one thread does, and the checks of the C functions.
// The arithmetic is that of edgeseg/imaging/preprocess.py and edgeseg/imaging/postprocess.py.
#pragma once

#include "edgeseg_plugin.h"
#include "portable.h"

namespace edgeseg {

inline bool is_word(const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 4 == 0; }

struct Pixel {
    float b, g, r;
};

// What a pixel of the input covers of a frame that is larger: [top, bottom) x [left, right), and the pixels under it.
struct Box {
    float top, bottom, left, right;
    std::int32_t first_row, end_row, first_column, end_column;

    EDGESEG_HD static Box of(std::int32_t y, std::int32_t x, float tall, float wide, std::int32_t height, std::int32_t width)
    {
        Box box{};
        box.top = static_cast<float>(y) * tall, box.left = static_cast<float>(x) * wide;
        box.bottom = fminf(static_cast<float>(y + 1) * tall, static_cast<float>(height));
        box.right = fminf(static_cast<float>(x + 1) * wide, static_cast<float>(width));
        box.first_row = static_cast<std::int32_t>(box.top), box.first_column = static_cast<std::int32_t>(box.left);
        box.end_row = static_cast<std::int32_t>(ceilf(box.bottom));
        box.end_column = static_cast<std::int32_t>(ceilf(box.right));
        return box;
    }
    EDGESEG_HD float area() const { return (bottom - top) * (right - left); }

    // How much of [begin, begin + 1) is inside; for the columns of a pair, of which one may be outside, at least 0.
    EDGESEG_HD float of_row(float begin) const { return fminf(bottom, begin + 1.f) - fmaxf(top, begin); }
    EDGESEG_HD float of_column(float begin) const { return fmaxf(fminf(right, begin + 1.f) - fmaxf(left, begin), 0.f); }
};

// A row of a plane; a device multiplies 32 bits by 32 in one instruction, 64 by 64 in many.
EDGESEG_HD const std::uint8_t* row_of(const std::uint8_t* plane, std::int32_t row, std::int32_t pitch)
{
    return plane + static_cast<std::int64_t>(row) * pitch;
}

// Three bytes a pixel, read as words wherever they lie: neighbouring threads ask for neighbouring words.
struct BgrFrame {
    const std::uint8_t *pixels, *end;  // the first pixel, and what follows the last
    std::int32_t pitch;

    static BgrFrame of(const edgeseg_frame& f)
    {
        const auto* pixels = static_cast<const std::uint8_t*>(f.plane);
        return {pixels, pixels + (f.height - 1) * f.pitch + 3 * f.width, static_cast<std::int32_t>(f.pitch)};
    }

    EDGESEG_HD Pixel at(std::int32_t y, std::int32_t x) const
    {
        const std::uint8_t* p = row_of(pixels, y, pitch) + 3 * x;
        return {static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2])};
    }

    // The levels of four neighbours where a row's words are aligned, three words.
    static bool has_words(const edgeseg_frame& f) { return is_word(f.plane) && f.pitch % 4 == 0; }
    EDGESEG_HD void four_at(std::int32_t y, std::int32_t x, float (&levels)[12]) const
    {
        const std::uint8_t* from = row_of(pixels, y, pitch) + 3 * x;
        for (int word = 0; word < 3; ++word) {
            const std::uint32_t four = load<4>(from + 4 * word).word[0];
            for (int i = 0; i < 4; ++i) levels[4 * word + i] = byte_of(four, static_cast<std::uint32_t>(i));
        }
    }

    // The pixels of a box, each by how much of it is inside.
    EDGESEG_HD Pixel sum(const Box& box) const
    {
        Pixel sum{0.f, 0.f, 0.f};
        for (std::int32_t column = box.first_column; column < box.end_column; column += 4) {
            const Run run = Run::of(box, column);
            const std::uint8_t* at = row_of(pixels, box.first_row, pitch) + 3 * column;
            // Rows begin at any byte of a word, unless all do at the same. A word that the frame's end divides is not
            // touched: there, byte by byte.
            const std::int32_t skew = pitch % 4 == 0 ? offset_of(at) : 3, words = skew + 3 * run.count > 12 ? 4 : 3;
            const std::uint8_t* last = row_of(at, box.end_row - 1 - box.first_row, pitch);
            if (last - offset_of(last) + 4 * words <= end) {
                add(sum, box, run, at, [words](const std::uint8_t* from) { return load_words(from, words); });
            } else {
                add(sum, box, run, at, [&run](const std::uint8_t* from) { return load_bytes(from, 3 * run.count); });
            }
        }
        return sum;
    }

    // Up to four columns of a box.
    struct Run {
        std::int32_t count;
        float outside_first, outside_last;              // how much of the first and last column is not inside
        std::uint32_t blue[3], green[3], red[3], last;  // whose are which bytes of three words; the last one's first bit

        EDGESEG_HD static Run of(const Box& box, std::int32_t column)
        {
            const std::int32_t left = box.end_column - column, count = left < 4 ? left : 4;
            const std::uint32_t a = count > 1 ? ~0u : 0xffffffu, b = count > 2 ? ~0u : count > 1 ? 0xffffu : 0u;
            const std::uint32_t c = count > 3 ? ~0u : count > 2 ? 0xffu : 0u;
            return {count, column == box.first_column ? box.left - static_cast<float>(column) : 0.f,
                    left <= 4 ? static_cast<float>(box.end_column) - box.right : 0.f,
                    {a & 0x01000001u, b & 0x00010000u, c & 0x00000100u},
                    {a & 0x00000100u, b & 0x01000001u, c & 0x00010000u},
                    {a & 0x00010000u, b & 0x00000100u, c & 0x01000001u},
                    static_cast<std::uint32_t>(24 * (count - 1)) & 31u};
        }
    };

    // The rows of a run. Its pixels are added as whole numbers, which is exact; what is not inside is then taken off.
    template <class Load>
    EDGESEG_HD void add(Pixel& sum, const Box& box, const Run& run, const std::uint8_t* at, const Load& load) const
    {
        const bool fractional = run.outside_first != 0.f || run.outside_last != 0.f;
        for (float begin = static_cast<float>(box.first_row); begin < box.bottom; begin += 1.f, at += pitch) {
            const Pack<12> bytes = load(at);
            const std::uint32_t* w = bytes.word;
            float b = total(w, run.blue), g = total(w, run.green), r = total(w, run.red);
            if (fractional) {  // the last pixel begins at byte 0, 3, 6 or 9
                const std::uint32_t low = run.count < 3 ? w[0] : run.count < 4 ? w[1] : w[2];
                const std::uint32_t last = funnel(low, run.count < 3 ? w[1] : w[2], run.last);
                b -= multiply_add(run.outside_last, byte_of(last, 0), run.outside_first * byte_of(w[0], 0));
                g -= multiply_add(run.outside_last, byte_of(last, 1), run.outside_first * byte_of(w[0], 1));
                r -= multiply_add(run.outside_last, byte_of(last, 2), run.outside_first * byte_of(w[0], 2));
            }
            const float part = box.of_row(begin);
            sum.b = multiply_add(part, b, sum.b), sum.g = multiply_add(part, g, sum.g), sum.r = multiply_add(part, r, sum.r);
        }
    }

    EDGESEG_HD static float total(const std::uint32_t* words, const std::uint32_t (&whose)[3])
    {
        const std::uint32_t two = dot(words[1], whose[1], dot(words[0], whose[0], two_to_23_bits));
        return bits_as<float>(dot(words[2], whose[2], two)) - two_to_23;
    }

    // From a word's first byte, 0 to 3.
    EDGESEG_HD static std::int32_t offset_of(const std::uint8_t* at)
    {
        return static_cast<std::int32_t>(reinterpret_cast<std::uintptr_t>(at) & 3u);
    }

    // 12 bytes out of 3 or 4 words; what is after the words is zero.
    EDGESEG_HD static Pack<12> load_words(const std::uint8_t* at, std::int32_t words)
    {
        const std::int32_t skew = offset_of(at);
        const std::uint8_t* first = at - skew;
        std::uint32_t word[4] = {load<4>(first).word[0], load<4>(first + 4).word[0], load<4>(first + 8).word[0], 0};
        if (words > 3) word[3] = load<4>(first + 12).word[0];
        Pack<12> out;
        for (int i = 0; i < 3; ++i) out.word[i] = funnel(word[i], word[i + 1], 8 * static_cast<std::uint32_t>(skew));
        return out;
    }
    EDGESEG_HD static Pack<12> load_bytes(const std::uint8_t* at, std::int32_t count)
    {
        Pack<12> out;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (std::int32_t i = 0; i < 12; ++i) {
            if (i < count) out.word[i / 4] |= static_cast<std::uint32_t>(at[i]) << (8 * (i % 4));
        }
        return out;
    }
};

// ITU-R BT.601 and BT.709, by their luma weights of red and blue, in float. Chroma is that of the 2x2 block, not
// interpolated. Levels are clamped, and not rounded before they are averaged.
struct Nv12Frame {
    const std::uint8_t *luma, *chroma;
    std::int32_t luma_pitch, chroma_pitch, width;
    bool by_pairs;                            // two bytes can be read at a time
    float black, y_gain, r_v, g_u, g_v, b_u;  // gains to 0 (black) to 1

    static Nv12Frame of(const edgeseg_frame& f)
    {
        const double red = f.matrix == EDGESEG_BT709 ? 0.2126 : 0.299;
        const double blue = f.matrix == EDGESEG_BT709 ? 0.0722 : 0.114;
        const double green = 1.0 - red - blue, c_gain = 2.0 / (f.full_range ? 255.0 : 224.0);
        const auto addresses = reinterpret_cast<std::uintptr_t>(f.plane) | reinterpret_cast<std::uintptr_t>(f.chroma);
        return {static_cast<const std::uint8_t*>(f.plane), static_cast<const std::uint8_t*>(f.chroma),
                static_cast<std::int32_t>(f.pitch), static_cast<std::int32_t>(f.chroma_pitch), f.width,
                addresses % 2 == 0 && (f.pitch | f.chroma_pitch) % 2 == 0, f.full_range ? 0.f : 16.f,
                static_cast<float>(1.0 / (f.full_range ? 255.0 : 219.0)), static_cast<float>(c_gain * (1.0 - red)),
                static_cast<float>(-c_gain * (1.0 - blue) * blue / green),
                static_cast<float>(-c_gain * (1.0 - red) * red / green), static_cast<float>(c_gain * (1.0 - blue))};
    }

    // What a block's chroma, U and V in two bytes, adds to its greys.
    EDGESEG_HD Pixel tint(std::uint32_t uv) const
    {
        const float u = byte_of(uv, 0, 128.f), v = byte_of(uv, 1, 128.f);
        return {b_u * u, multiply_add(g_v, v, g_u * u), r_v * v};
    }
    EDGESEG_HD Pixel levels(std::uint32_t y, std::uint32_t i, const Pixel& tint) const
    {
        const float above = fmaxf(byte_of(y, i, black), 0.f);  // as OpenCV: nothing is blacker than black
        return {multiply_add_saturated(above, y_gain, tint.b), multiply_add_saturated(above, y_gain, tint.g),
                multiply_add_saturated(above, y_gain, tint.r)};
    }

    EDGESEG_HD Pixel at(std::int32_t y, std::int32_t x) const
    {
        const std::uint8_t* uv = row_of(chroma, y / 2, chroma_pitch) + x / 2 * 2;
        const Pixel p = levels(row_of(luma, y, luma_pitch)[x], 0, tint(load_bytes(uv, 1)));
        return {255.f * p.b, 255.f * p.g, 255.f * p.r};
    }

    // As BgrFrame::four_at, of a word of luma and one of chroma.
    static bool has_words(const edgeseg_frame& f)
    {
        return is_word(f.plane) && is_word(f.chroma) && f.pitch % 4 == 0 && f.chroma_pitch % 4 == 0;
    }
    EDGESEG_HD void four_at(std::int32_t y, std::int32_t x, float (&out)[12]) const
    {
        const std::uint32_t greys = load<4>(row_of(luma, y, luma_pitch) + x).word[0];
        const std::uint32_t uv = load<4>(row_of(chroma, y / 2, chroma_pitch) + x).word[0];
        for (int pair = 0; pair < 2; ++pair) {
            const Pixel added = tint(uv >> (16 * pair));
            for (int i = 2 * pair; i < 2 * pair + 2; ++i) {
                const Pixel p = levels(greys, static_cast<std::uint32_t>(i), added);
                out[3 * i] = 255.f * p.b, out[3 * i + 1] = 255.f * p.g, out[3 * i + 2] = 255.f * p.r;
            }
        }
    }

    // As BgrFrame::sum, by pairs of pixels that share their chroma.
    EDGESEG_HD Pixel sum(const Box& box) const
    {
        Pixel sum{0.f, 0.f, 0.f};
        for (std::int32_t column = box.first_column & ~1; column < box.end_column; column += 2) {
            if (by_pairs && column + 1 < width) {
                add(sum, box, column, [](const std::uint8_t* at, std::int32_t) { return load<2>(at).word[0]; });
            } else {
                add(sum, box, column, load_bytes);
            }
        }
        return {255.f * sum.b, 255.f * sum.g, 255.f * sum.r};
    }

    // The rows of two columns. The second may be none of the frame's.
    template <class Load>
    EDGESEG_HD void add(Pixel& sum, const Box& box, std::int32_t column, const Load& load) const
    {
        const auto here = static_cast<float>(column);
        const float left = box.of_column(here), right = box.of_column(here + 1.f);
        const std::int32_t second = column + 1 < width ? 1 : 0;
        std::int32_t row = box.first_row;
        const std::uint8_t* at = row_of(luma, row, luma_pitch) + column;
        for (auto begin = static_cast<float>(row); begin < box.bottom; begin += 1.f, ++row, at += luma_pitch) {
            const std::uint32_t y = load(at, second);
            const Pixel added = tint(load(row_of(chroma, row >> 1, chroma_pitch) + column, 1));
            const Pixel a = levels(y, 0, added), b = levels(y, 1, added);
            const float part = box.of_row(begin), one = part * left, other = part * right;
            sum.b = multiply_add(other, b.b, multiply_add(one, a.b, sum.b));
            sum.g = multiply_add(other, b.g, multiply_add(one, a.g, sum.g));
            sum.r = multiply_add(other, b.r, multiply_add(one, a.r, sum.r));
        }
    }

    // A byte and the one `second` bytes on.
    EDGESEG_HD static std::uint32_t load_bytes(const std::uint8_t* at, std::int32_t second)
    {
        return at[0] | static_cast<std::uint32_t>(at[second]) << 8;
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

enum class Resize { none, bilinear, area };

// A thread makes one pixel of the input, three channels. Halves are rounded up, as OpenCV's resizes of bytes do.
template <class Frame, class T>
struct Preprocess {
    Frame frame;
    T* out;
    std::int32_t frame_height, frame_width;
    std::uint32_t width;
    Divisor by_width;
    std::int64_t plane;    // pixels of a channel
    float tall, wide;      // frame pixels an input pixel
    Resize resize;
    bool rgb;
    float gain[3], offset[3];

    EDGESEG_HD void operator()(std::uint32_t item) const
    {
        const std::uint32_t row = by_width.divide(item);
        const auto y = static_cast<std::int32_t>(row), x = static_cast<std::int32_t>(item - row * width);
        const Pixel p = resize == Resize::area ? mean(y, x) : resize == Resize::none ? frame.at(y, x) : between(y, x);
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
        const Box box = Box::of(y, x, tall, wide, frame_height, frame_width);
        const Pixel sum = frame.sum(box);
        const float part = 1.f / box.area();
        return {sum.b * part, sum.g * part, sum.r * part};
    }
};

// The class with the first maximum; NaN counts as a maximum, as in NumPy.
struct Best {
    float score;
    std::uint32_t label;

    EDGESEG_HD void meet(float next, std::uint32_t other)
    {
        if (!(next <= score) && !is_nan(score)) score = next, label = other;  // NaN is neither more nor less
    }
};

template <class T>
struct ArgmaxOf {
    static constexpr std::size_t four = 4 * sizeof(T);  // bytes of four neighbours

    const T* scores;
    std::int32_t classes, height, width;

    const void* data() const { return scores; }
    EDGESEG_HD std::int64_t plane() const { return static_cast<std::int64_t>(height) * width; }
    EDGESEG_HD const T* first(std::int32_t y, std::int32_t x) const { return scores + static_cast<std::int64_t>(y) * width + x; }

    EDGESEG_HD std::uint32_t at(std::int32_t y, std::int32_t x) const
    {
        const T* score = first(y, x);
        const std::int64_t plane = this->plane();
        Best best{to_float(*score), 0};
        for (std::int32_t c = 1; c < classes; ++c) {
            score += plane;
            best.meet(to_float(*score), static_cast<std::uint32_t>(c));
        }
        return best.label;
    }

    // Four neighbours, one a byte, where scores are aligned to as many.
    EDGESEG_HD std::uint32_t four_at(std::int32_t y, std::int32_t x) const
    {
        const T* score = first(y, x);
        const std::int64_t plane = this->plane();
        Best best[4];
        const Pack<four> begin = load<four>(score);
        for (int i = 0; i < 4; ++i) best[i] = {to_float(lane<T>(begin, i)), 0};
        for (std::int32_t c = 1; c < classes; ++c) {
            score += plane;
            const Pack<four> next = load<four>(score);
            for (int i = 0; i < 4; ++i) best[i].meet(to_float(lane<T>(next, i)), static_cast<std::uint32_t>(c));
        }
        return best[0].label | best[1].label << 8 | best[2].label << 16 | best[3].label << 24;
    }
};

struct LabelsOf {
    static constexpr std::size_t four = 4;

    const std::uint8_t* labels;
    std::int32_t height, width;

    const void* data() const { return labels; }
    EDGESEG_HD std::uint32_t at(std::int32_t y, std::int32_t x) const
    {
        return labels[static_cast<std::int64_t>(y) * width + x];
    }
    EDGESEG_HD std::uint32_t four_at(std::int32_t y, std::int32_t x) const
    {
        return load<4>(labels + static_cast<std::int64_t>(y) * width + x).word[0];
    }
};

// A thread makes up to four neighbours of a row: where all rows are aligned (`wide`), three words of the picture.
template <class Labels, class Frame>
struct Overlay {
    static constexpr std::int32_t group = 4;

    Labels labels;
    std::int32_t height, width;
    std::uint32_t groups;  // of a row
    Divisor by_groups, by_height, by_width;  // the latter by twice the picture's sides
    bool wide, wide_labels, wide_palette, together;  // together: four labels are for four pixels
    Frame frame;
    std::uint8_t* picture;
    std::int64_t picture_pitch;
    const std::uint8_t* palette;
    std::uint8_t* labels_out;
    float frame_weight, colour_weight;

    EDGESEG_HD void operator()(std::uint32_t item) const
    {
        const std::uint32_t line = by_groups.divide(item);
        const auto y = static_cast<std::int32_t>(line), x = group * static_cast<std::int32_t>(item - line * groups);
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
        std::uint8_t* to = picture + y * picture_pitch + 3 * static_cast<std::int64_t>(x);
        if (wide && wide_palette && count == group) {
            float levels[3 * group];
            frame.four_at(y, x, levels);
            Paint paint[group];
            paint[0] = paint_of(label_at(ids, 0));
            if (ids == label_at(ids, 0) * 0x01010101u) {  // most are, and a colour takes as long as its pixel
                for (int pixel = 1; pixel < group; ++pixel) paint[pixel] = paint[0];
            } else {
                for (int pixel = 1; pixel < group; ++pixel) paint[pixel] = paint_of(label_at(ids, pixel));
            }
            for (int word = 0; word < 3; ++word) {
                std::uint32_t out[4];
                for (int i = 0; i < 4; ++i) {
                    const int byte = 4 * word + i;
                    out[i] = blended(levels[byte], paint[byte / 3], byte % 3);
                }
                store<4>(to + 4 * word, Pack<4>{{low_bytes(out[0], out[1], out[2], out[3])}});
            }
            return;
        }
        for (int pixel = 0; pixel < count; ++pixel) {
            const Paint paint = paint_of(label_at(ids, pixel));
            const Pixel p = frame.at(y, x + pixel);
            const float levels[3] = {p.b, p.g, p.r};
            for (int c = 0; c < 3; ++c) to[3 * pixel + c] = static_cast<std::uint8_t>(blended(levels[c], paint, c));
        }
    }

    // The labels of `count` pixels from (y, x) on, one a byte. Where the picture is larger than the scores, neighbours
    // share one, and it is looked for once.
    EDGESEG_HD std::uint32_t labels_of(std::int32_t y, std::int32_t x, std::int32_t count) const
    {
        const std::int32_t row = nearest(centre(y) * static_cast<std::uint32_t>(labels.height), by_height);
        if (together && count == group) return labels.four_at(row, x);
        std::uint32_t ids = 0, label = 0, place = centre(x) * static_cast<std::uint32_t>(labels.width);
        std::int32_t last = -1;
#ifdef __CUDA_ARCH__
#pragma unroll 1
#endif
        for (int i = 0; i < count; ++i, place += 2 * static_cast<std::uint32_t>(labels.width)) {
            const std::int32_t column = nearest(place, by_width);
            if (column != last) label = labels.at(row, column), last = column;
            ids |= label << (8 * i);
        }
        return ids;
    }
    EDGESEG_HD static std::uint32_t label_at(std::uint32_t ids, int pixel) { return (ids >> (8 * pixel)) & 0xffu; }

    // What a label adds to the frame's levels, and their weight: 1 where it is not painted.
    struct Paint {
        float level[3], weight;
    };
    EDGESEG_HD Paint paint_of(std::uint32_t label) const
    {
        const std::uint8_t* at = palette + 4 * label;
        const std::uint32_t colour = wide_palette ? load<4>(at).word[0] : low_bytes(at[0], at[1], at[2], at[3]);
        const bool shown = colour >> 24 != 0;
        const float weight = shown ? colour_weight : 0.f;
        return {{byte_of(colour, 0) * weight, byte_of(colour, 1) * weight, byte_of(colour, 2) * weight},
                shown ? frame_weight : 1.f};
    }

    // In the low byte. It is between 0 and 255: the weights' sum is 1, to a float's last digit.
    EDGESEG_HD static std::uint32_t blended(float level, const Paint& paint, int channel)
    {
        return rounded(multiply_add(level, paint.weight, paint.level[channel]));
    }

    // Source pixel that pixel i's centre falls into; the right or lower one where it falls between two: of twice the centre
    // times the source's side, by twice the picture's. Sides are below 2^15, the product below 2^31.
    EDGESEG_HD static std::uint32_t centre(std::int32_t i) { return 2 * static_cast<std::uint32_t>(i) + 1; }
    EDGESEG_HD static std::int32_t nearest(std::uint32_t place, const Divisor& sides)
    {
        return static_cast<std::int32_t>(sides.divide(place));
    }
};

namespace detail {

constexpr std::int32_t max_side = 32767;  // so that the number of a picture's pixels is an int32

constexpr std::int64_t max_pitch = 0x7fffffff;

inline bool is_size(std::int32_t height, std::int32_t width)
{
    return height > 0 && width > 0 && height <= max_side && width <= max_side;
}

inline bool is_frame(const edgeseg_frame& f)
{
    if (!is_size(f.height, f.width) || f.plane == nullptr || (f.pitch | f.chroma_pitch) > max_pitch) return false;
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
    const bool area = in.resize == EDGESEG_AREA || (in.resize == EDGESEG_AS_PYTHON && shrinks);
    const auto width = static_cast<std::uint32_t>(in.width);
    Preprocess<Frame, T> body{frame, static_cast<T*>(out), f.height, f.width, width, Divisor::of(width),
                              static_cast<std::int64_t>(in.height) * in.width,
                              static_cast<float>(static_cast<double>(f.height) / in.height),
                              static_cast<float>(static_cast<double>(f.width) / in.width),
                              same ? Resize::none : area ? Resize::area : Resize::bilinear, in.is_rgb != 0, {}, {}};
    for (int c = 0; c < 3; ++c) body.gain[c] = in.gain[c], body.offset[c] = in.offset[c];
    return run(body, static_cast<std::uint32_t>(in.height) * static_cast<std::uint32_t>(in.width));
}

template <class Frame, class Labels, class Runner>
int overlay(const Labels& labels, const edgeseg_overlay& o, Runner& run)
{
    using Body = Overlay<Labels, Frame>;
    const std::int32_t height = o.frame.height, width = o.frame.width;
    const auto groups = static_cast<std::uint32_t>((width + Body::group - 1) / Body::group);
    const auto twice = [](std::int32_t side) { return Divisor::of(2 * static_cast<std::uint32_t>(side)); };
    const bool wide = is_word(o.picture) && o.picture_pitch % 4 == 0 && Frame::has_words(o.frame);
    const bool together = labels.width == width && width % Body::group == 0 &&
                          reinterpret_cast<std::uintptr_t>(labels.data()) % Labels::four == 0;
    const Body body{labels, height, width, groups, Divisor::of(groups), twice(height), twice(width), wide,
                    is_word(o.labels_out) && width % 4 == 0, is_word(o.palette), together,
                    o.picture != nullptr ? Frame::of(o.frame) : Frame{}, static_cast<std::uint8_t*>(o.picture),
                    o.picture_pitch, static_cast<const std::uint8_t*>(o.palette),
                    static_cast<std::uint8_t*>(o.labels_out), static_cast<float>(1.0 - o.alpha),
                    static_cast<float>(o.alpha)};
    return run(body, static_cast<std::uint32_t>(height) * groups);
}

template <class Labels, class Runner>
int overlay(const Labels& labels, const edgeseg_overlay* o, Runner& run)
{
    if (o == nullptr || !is_size(o->frame.height, o->frame.width) || !is_size(labels.height, labels.width)) {
        return EDGESEG_BAD_ARGUMENT;
    }
    if (o->picture == nullptr) {
        return o->labels_out == nullptr ? EDGESEG_BAD_ARGUMENT : overlay<BgrFrame>(labels, *o, run);
    }
    if (!(o->alpha >= 0.0 && o->alpha <= 1.0) || o->palette == nullptr || !is_frame(o->frame)) return EDGESEG_BAD_ARGUMENT;
    if (o->picture_pitch < 3 * static_cast<std::int64_t>(o->frame.width)) return EDGESEG_BAD_ARGUMENT;
    return o->frame.kind == EDGESEG_BGR ? overlay<BgrFrame>(labels, *o, run) : overlay<Nv12Frame>(labels, *o, run);
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
    if (f->kind == EDGESEG_BGR) return go(BgrFrame::of(*f));
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
