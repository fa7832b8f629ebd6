// Max-pooling to a value and a one-byte code, and its way back: what one thread does, and which way is taken.
//
// The code says which of a 2x2 window's four positions held the maximum, 0 1 / 2 3. The rule is PyTorch's: positions are
// visited in row-major order and a value takes over if it is greater than the maximum so far or is NaN. So the first of
// equal values wins, -0 and 0 are equal, and of several NaN the last wins. An odd last row or column is dropped.
#pragma once

#include "portable.h"

namespace edgeseg {

enum class Type { fp32, fp16, int8 };

// linear: [N][C][H][W]. hwc8, hwc16: [N][H][W][C], C padded to a multiple of 8 or 16. chw32: [N][C/32][H][W][32], padded.
enum class Format { linear, hwc8, hwc16, chw32 };

struct Shape {
    std::int64_t n, c, h, w;

    EDGESEG_HD std::int64_t volume() const { return n * c * h * w; }
};

// Where an element is: channels lie in groups, and a group's `lanes` channels of one pixel are contiguous.
struct Layout {
    std::int64_t groups, lanes;

    static Layout of(Format format, std::int64_t channels)
    {
        switch (format) {
            case Format::hwc8: return {1, (channels + 7) / 8 * 8};
            case Format::hwc16: return {1, (channels + 15) / 16 * 16};
            case Format::chw32: return {(channels + 31) / 32, 32};
            case Format::linear: break;
        }
        return {channels, 1};
    }
    EDGESEG_HD std::int64_t channels() const { return groups * lanes; }
    EDGESEG_HD std::int64_t offset(std::int64_t n, std::int64_t c, std::int64_t y, std::int64_t x, std::int64_t height,
                                   std::int64_t width) const
    {
        const std::int64_t group = groups == 1 ? 0 : c / lanes;
        return (((n * groups + group) * height + y) * width + x) * lanes + (c - group * lanes);
    }
};

template <class T>
struct Winner {
    T value;
    std::int8_t code;
};

template <class T>
EDGESEG_HD Winner<T> winner(T x0, T x1, T x2, T x3)
{
    Winner<T> best{x0, 0};
    auto top = order(x0);
    const T rest[3] = {x1, x2, x3};
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
    for (int i = 0; i < 3; ++i) {
        const auto rank = order(rest[i]);
        if (rank > top || is_nan(rank)) {
            top = rank;
            best.value = rest[i];
            best.code = static_cast<std::int8_t>(i + 1);
        }
    }
    return best;
}

// ---- LINEAR ----

// A thread makes a run of outputs, contiguous in memory: 8 bytes of values from 16 bytes of each of two rows. Runs are
// counted over the whole output, so writes are always aligned, whatever the width; reads are by load_any. A run that
// goes over the end of a row, or reads at the very end of the tensor, goes element by element.
template <class T, class Index>
struct PoolLinear {
    static constexpr int run = 8 / static_cast<int>(sizeof(T));

    const T* x;
    T* value;
    std::int8_t* code;
    Index outputs, height, width;  // of the output: all elements, and a plane's sides
    std::int64_t in_width;
    bool odd_height;  // a plane's last input row is dropped
    bool aligned;     // value and code may be written by packs
    Span readable;

    EDGESEG_HD std::int64_t source(Index row) const
    {
        const std::int64_t dropped = odd_height ? static_cast<std::int64_t>(row / height) : 0;
        return (2 * static_cast<std::int64_t>(row) + dropped) * in_width;
    }

    EDGESEG_HD void operator()(Index item) const
    {
        const Index first = item * run;
        Index row = first / width, column = first - row * width;
        if (aligned && first + run <= outputs && column + run <= width) {
            const T* top = x + source(row) + 2 * static_cast<std::int64_t>(column);
            const T* bottom = top + in_width;
            if (readable.has_blocks(top) && readable.has_blocks(bottom)) {
                whole(first, load_any(top), load_any(bottom));
                return;
            }
        }
        const Index last = first + run < outputs ? first + run : outputs;
        for (Index i = first; i < last; ++i) {
            const T* top = x + source(row) + 2 * static_cast<std::int64_t>(column);
            const Winner<T> best = winner(top[0], top[1], top[in_width], top[in_width + 1]);
            value[i] = best.value;
            code[i] = best.code;
            if (++column == width) column = 0, ++row;
        }
    }

    EDGESEG_HD void whole(Index first, const Pack<16>& top, const Pack<16>& bottom) const
    {
        Pack<8> values;
        Pack<run> codes;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (int i = 0; i < run; ++i) {
            const Winner<T> best = winner(lane<T>(top, 2 * i), lane<T>(top, 2 * i + 1), lane<T>(bottom, 2 * i),
                                          lane<T>(bottom, 2 * i + 1));
            set_lane(values, i, best.value);
            set_lane(codes, i, best.code);
        }
        store(value + first, values);
        store(code + first, codes);
    }
};

// A value where the code says so, else zero; plus the addend if there is one.
template <class T>
EDGESEG_HD T placed(T value, std::int8_t code, int position)
{
    return code == position ? value : T{};
}

template <class T>
EDGESEG_HD void add_to(Pack<16>& pack, const T* addend)
{
    if constexpr (sizeof(T) > 1) {
        if (addend == nullptr) return;
        const Pack<16> more = load<16>(addend);
        Pack<16> sum;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (int i = 0; i < 16 / static_cast<int>(sizeof(T)); ++i) {
            set_lane(sum, i, add(lane<T>(pack, i), lane<T>(more, i)));
        }
        pack = sum;
    }
}

template <class T>
EDGESEG_HD T plus(T x, const T* addend, std::int64_t at)
{
    if constexpr (sizeof(T) > 1) {
        if (addend != nullptr) return add(x, addend[at]);
    }
    return x;
}

// Where every output row is a multiple of 16 bytes: a thread reads a run of windows once and writes 16 bytes of two rows.
template <class T, class Index>
struct UnpoolRows {
    static constexpr int run = 8 / static_cast<int>(sizeof(T));

    const T* value;
    const std::int8_t* code;
    const T* addend;
    T* out;
    Index height, width;  // of a plane of windows; width is a multiple of `run`
    bool extra_row;

    EDGESEG_HD void operator()(Index item) const
    {
        const Index first = item * run, row = first / width, column = first - row * width, plane = row / height;
        const Pack<8> values = load<8>(value + first);
        const Pack<run> codes = load<run>(code + first);
        const std::int64_t out_width = 2 * static_cast<std::int64_t>(width);
        std::int64_t at = (2 * static_cast<std::int64_t>(row) + (extra_row ? static_cast<std::int64_t>(plane) : 0)) *
                              out_width + 2 * static_cast<std::int64_t>(column);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (int y = 0; y < 2; ++y) {
            Pack<16> pixels;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
            for (int i = 0; i < 2 * run; ++i) {
                set_lane(pixels, i, placed(lane<T>(values, i / 2), lane<std::int8_t>(codes, i / 2), 2 * y + i % 2));
            }
            write(at, pixels);
            at += out_width;
        }
        if (extra_row && row - plane * height + 1 == height) write(at, Pack<16>{});
    }

    EDGESEG_HD void write(std::int64_t at, Pack<16> pixels) const
    {
        add_to(pixels, addend == nullptr ? nullptr : addend + at);
        store(out + at, pixels);
    }
};

// Any other size: a thread makes 16 bytes of output, counted over the whole output, and gathers the windows it needs.
template <class T, class Index>
struct UnpoolLinear {
    static constexpr int run = 16 / static_cast<int>(sizeof(T));

    const T* value;
    const std::int8_t* code;
    const T* addend;
    T* out;
    Index outputs, out_height, out_width;
    std::int64_t height, width;  // of a plane of windows
    bool aligned;                // out and addend may be accessed by packs
    Span values_readable, codes_readable;

    EDGESEG_HD void operator()(Index item) const
    {
        const Index first = item * run;
        Index row = first / out_width, x = first - row * out_width, plane = row / out_height;
        Index y = row - plane * out_height;
        if (aligned && first + run <= outputs && x + run <= out_width) {
            if (static_cast<std::int64_t>(y) >= 2 * height) {
                write(first, Pack<16>{});
                return;
            }
            const std::int64_t from = (static_cast<std::int64_t>(plane) * height + y / 2) * width + x / 2;
            if (values_readable.has_blocks(value + from) && codes_readable.has_blocks(code + from)) {
                write(first, gathered(y, x, from));
                return;
            }
        }
        const Index last = first + run < outputs ? first + run : outputs;
        for (Index i = first; i < last; ++i) {
            T pixel{};
            if (static_cast<std::int64_t>(y) < 2 * height && static_cast<std::int64_t>(x) < 2 * width) {
                const std::int64_t from = (static_cast<std::int64_t>(plane) * height + y / 2) * width + x / 2;
                pixel = placed(value[from], code[from], static_cast<int>(y % 2 * 2 + x % 2));
            }
            out[i] = plus(pixel, addend, static_cast<std::int64_t>(i));
            if (++x == out_width) {
                x = 0;
                if (++y == out_height) y = 0, ++plane;
            }
        }
    }

    // 16 bytes of values and 16 codes hold more windows than a run touches: run / 2 + 1.
    EDGESEG_HD Pack<16> gathered(Index y, Index x, std::int64_t from) const
    {
        const Pack<16> values = load_any(value + from), codes = load_any(code + from);
        const bool odd = x % 2 != 0;
        const int above = static_cast<int>(y % 2) * 2;
        Pack<16> pixels;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (int i = 0; i < run; ++i) {
            const T here = odd ? lane<T>(values, (i + 1) / 2) : lane<T>(values, i / 2);
            const std::int8_t which = odd ? lane<std::int8_t>(codes, (i + 1) / 2) : lane<std::int8_t>(codes, i / 2);
            const bool inside = static_cast<std::int64_t>(x) + i < 2 * width;
            set_lane(pixels, i, inside ? placed(here, which, above + (odd ? (i + 1) % 2 : i % 2)) : T{});
        }
        return pixels;
    }

    EDGESEG_HD void write(Index first, Pack<16> pixels) const
    {
        add_to(pixels, addend == nullptr ? nullptr : addend + first);
        store(out + first, pixels);
    }
};

// ---- channels packed ----

// A thread's place: a pixel or window, and 16 bytes of its channels. Neighbouring threads are neighbours in memory.
template <class T, class Index>
struct Chunks {
    static constexpr int channels = 16 / static_cast<int>(sizeof(T));

    Index height, width, per_group, groups;

    // Enough chunks for the more padded of the two tensors.
    Chunks(const Layout& value, const Layout& code, std::int64_t h, std::int64_t w)
        : height(static_cast<Index>(h)), width(static_cast<Index>(w))
    {
        const std::int64_t most = value.channels() > code.channels() ? value.channels() : code.channels();
        groups = static_cast<Index>(value.groups);
        per_group = static_cast<Index>((value.groups == 1 ? most : value.lanes) / channels);
    }
    std::int64_t count(std::int64_t batch) const
    {
        return batch * static_cast<std::int64_t>(groups) * height * width * per_group;
    }

    struct Place {
        std::int64_t n, c, y, x;
    };
    EDGESEG_HD Place place(Index item) const
    {
        const Index pixel = item / per_group, chunk = item - pixel * per_group;
        const Index row = pixel / width, x = pixel - row * width;
        const Index plane = row / height, y = row - plane * height;
        const Index n = plane / groups, group = plane - n * groups;
        return {static_cast<std::int64_t>(n), (static_cast<std::int64_t>(group) * per_group + chunk) * channels,
                static_cast<std::int64_t>(y), static_cast<std::int64_t>(x)};
    }
};

// Padding channels are written as zero: a convolution multiplies them by zero weights, and NaN times zero is NaN.
template <class T, class Index>
struct PoolPacked {
    static constexpr int channels = Chunks<T, Index>::channels;

    const T* x;
    T* value;
    std::int8_t* code;
    Layout value_layout, code_layout;
    Chunks<T, Index> chunks;  // of the output
    std::int64_t real_channels, in_height, in_width;

    EDGESEG_HD void operator()(Index item) const
    {
        const auto at = chunks.place(item);
        Pack<16> values;
        Pack<channels> codes;
        if (at.c < value_layout.channels()) {
            const T* top = x + value_layout.offset(at.n, at.c, 2 * at.y, 2 * at.x, in_height, in_width);
            const T* bottom = top + in_width * value_layout.lanes;
            const Pack<16> a = load<16>(top), b = load<16>(top + value_layout.lanes);
            const Pack<16> c = load<16>(bottom), d = load<16>(bottom + value_layout.lanes);
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
            for (int i = 0; i < channels; ++i) {
                const Winner<T> best = winner(lane<T>(a, i), lane<T>(b, i), lane<T>(c, i), lane<T>(d, i));
                const bool real = at.c + i < real_channels;
                set_lane(values, i, real ? best.value : T{});
                set_lane(codes, i, real ? best.code : std::int8_t{0});
            }
            store(value + value_layout.offset(at.n, at.c, at.y, at.x, chunks.height, chunks.width), values);
        }
        store(code + code_layout.offset(at.n, at.c, at.y, at.x, chunks.height, chunks.width), codes);
    }
};

// A thread has a window: four pixels, or the two or one of the extra row and column, where there is no value.
template <class T, class Index>
struct UnpoolPacked {
    static constexpr int channels = Chunks<T, Index>::channels;

    const T* value;
    const std::int8_t* code;
    const T* addend;
    T* out;
    Layout value_layout, code_layout;
    Chunks<T, Index> chunks;  // of the windows, those of the extra row and column included
    std::int64_t real_channels, height, width, out_height, out_width;

    EDGESEG_HD void operator()(Index item) const
    {
        const auto at = chunks.place(item);
        if (at.c >= value_layout.channels()) return;
        Pack<16> values;
        Pack<channels> codes;
        if (at.y < height && at.x < width) {
            values = load<16>(value + value_layout.offset(at.n, at.c, at.y, at.x, height, width));
            codes = load<channels>(code + code_layout.offset(at.n, at.c, at.y, at.x, height, width));
        }
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
        for (int position = 0; position < 4; ++position) {
            const std::int64_t y = 2 * at.y + position / 2, x = 2 * at.x + position % 2;
            if (y >= out_height || x >= out_width) continue;
            Pack<16> pixel;
#ifdef __CUDA_ARCH__
#pragma unroll
#endif
            for (int i = 0; i < channels; ++i) {
                const T here = placed(lane<T>(values, i), lane<std::int8_t>(codes, i), position);
                set_lane(pixel, i, at.c + i < real_channels ? here : T{});
            }
            const std::int64_t to = value_layout.offset(at.n, at.c, y, x, out_height, out_width);
            add_to(pixel, addend == nullptr ? nullptr : addend + to);
            store(out + to, pixel);
        }
    }
};

// ---- which way ----

// A pooling: x (in) to value and code (n, c, h / 2, w / 2).
struct PoolCall {
    Type type;
    Format format, code_format;
    Shape in;
    const void* x;
    void* value;
    void* code;
    bool wide = false;  // 64-bit indices even where 32 bits do; tensors that need them take them without being told
};

// An unpooling: value and code (windows) to out (n, c, 2h + extra_rows, 2w + extra_columns), plus addend unless null.
struct UnpoolCall {
    Type type;
    Format format, code_format;
    Shape windows;
    int extra_rows, extra_columns;
    const void* value;
    const void* code;
    const void* addend;
    void* out;
    bool wide = false;
};

constexpr int bad_argument = -1;

// Pairs of formats there are kernels for. Codes of packed values are packed too, and in chunks at least as wide.
constexpr bool supported(Type type, Format value, Format code)
{
    if (value == Format::linear) return code == Format::linear;
    if (type == Type::fp16) return value == Format::hwc8 && (code == Format::chw32 || code == Format::hwc16);
    return type == Type::int8 && value == code && (value == Format::chw32 || value == Format::hwc16);
}

namespace detail {

constexpr std::int64_t narrow_limit = std::int64_t{1} << 31;

inline bool aligned16(const void* at) { return reinterpret_cast<std::uintptr_t>(at) % 16 == 0; }

template <class T>
Span span(const void* begin, std::int64_t elements)
{
    const auto address = reinterpret_cast<std::uintptr_t>(begin);
    return {address, address + static_cast<std::uintptr_t>(elements) * sizeof(T)};
}

template <class Index, class Runner, class Body>
int run_items(Runner& run, const Body& body, std::int64_t items)
{
    return items == 0 ? 0 : run(body, static_cast<Index>(items));
}

template <class T, class Index, class Runner>
int pool(const PoolCall& call, Runner& run)
{
    const Shape in = call.in, out{in.n, in.c, in.h / 2, in.w / 2};
    const auto* x = static_cast<const T*>(call.x);
    auto* value = static_cast<T*>(call.value);
    auto* code = static_cast<std::int8_t*>(call.code);
    if (call.format == Format::linear) {
        using Body = PoolLinear<T, Index>;
        const Body body{x, value, code, static_cast<Index>(out.volume()), static_cast<Index>(out.h),
                        static_cast<Index>(out.w), in.w, in.h % 2 != 0, aligned16(value) && aligned16(code),
                        span<T>(x, in.volume())};
        return run_items<Index>(run, body, (out.volume() + Body::run - 1) / Body::run);
    }
    if (!aligned16(x) || !aligned16(value) || !aligned16(code)) return bad_argument;
    if constexpr (sizeof(T) < 4) {
        const Layout layout = Layout::of(call.format, in.c), code_layout = Layout::of(call.code_format, in.c);
        const Chunks<T, Index> chunks(layout, code_layout, out.h, out.w);
        const PoolPacked<T, Index> body{x, value, code, layout, code_layout, chunks, in.c, in.h, in.w};
        return run_items<Index>(run, body, chunks.count(in.n));
    }
    return bad_argument;
}

template <class T, class Index, class Runner>
int unpool(const UnpoolCall& call, Runner& run)
{
    const Shape in = call.windows;
    const Shape out{in.n, in.c, 2 * in.h + call.extra_rows, 2 * in.w + call.extra_columns};
    const auto* value = static_cast<const T*>(call.value);
    const auto* code = static_cast<const std::int8_t*>(call.code);
    const auto* addend = static_cast<const T*>(call.addend);
    auto* to = static_cast<T*>(call.out);
    const bool out_aligned = aligned16(to) && aligned16(addend);
    const bool all_aligned = out_aligned && aligned16(value) && aligned16(code);
    if (call.format == Format::linear) {
        using Rows = UnpoolRows<T, Index>;
        if (all_aligned && in.volume() > 0 && call.extra_columns == 0 && in.w % Rows::run == 0) {
            const Rows body{value, code, addend, to, static_cast<Index>(in.h), static_cast<Index>(in.w),
                            call.extra_rows != 0};
            return run_items<Index>(run, body, in.volume() / Rows::run);
        }
        using Body = UnpoolLinear<T, Index>;
        const Body body{value, code, addend, to, static_cast<Index>(out.volume()), static_cast<Index>(out.h),
                        static_cast<Index>(out.w), in.h, in.w, out_aligned, span<T>(value, in.volume()),
                        span<std::int8_t>(code, in.volume())};
        return run_items<Index>(run, body, (out.volume() + Body::run - 1) / Body::run);
    }
    if (!all_aligned) return bad_argument;
    if constexpr (sizeof(T) < 4) {
        const Layout layout = Layout::of(call.format, in.c), code_layout = Layout::of(call.code_format, in.c);
        const Chunks<T, Index> chunks(layout, layout, (out.h + 1) / 2, (out.w + 1) / 2);
        const UnpoolPacked<T, Index> body{value, code, addend, to, layout, code_layout, chunks,
                                          in.c, in.h, in.w, out.h, out.w};
        return run_items<Index>(run, body, chunks.count(in.n));
    }
    return bad_argument;
}

// With padding, of the more padded tensor.
inline std::int64_t most_channels(Format value, Format code, std::int64_t channels)
{
    const std::int64_t a = Layout::of(value, channels).channels(), b = Layout::of(code, channels).channels();
    return a > b ? a : b;
}

inline bool is_shape(const Shape& s) { return s.n >= 0 && s.c >= 0 && s.h >= 0 && s.w >= 0; }

}  // namespace detail

// Run a pooling: `run(body, items)` calls body(0) to body(items - 1) in any order, and returns 0 or an error. Returns
// what it returned, or bad_argument where there is no kernel for what is asked.
template <class Runner>
int max_pool_code(const PoolCall& call, Runner&& run)
{
    if (!supported(call.type, call.format, call.code_format) || !detail::is_shape(call.in)) return bad_argument;
    const std::int64_t planes = call.in.n * detail::most_channels(call.format, call.code_format, call.in.c);
    const bool wide = call.wide || planes * call.in.h * call.in.w >= detail::narrow_limit;
    const auto go = [&](auto element, auto index) {
        return detail::pool<decltype(element), decltype(index)>(call, run);
    };
    switch (call.type) {
        case Type::fp32: return wide ? go(float{}, std::int64_t{}) : go(float{}, std::uint32_t{});
        case Type::fp16: return wide ? go(Half{}, std::int64_t{}) : go(Half{}, std::uint32_t{});
        case Type::int8: break;
    }
    return wide ? go(std::int8_t{}, std::int64_t{}) : go(std::int8_t{}, std::uint32_t{});
}

// Run an unpooling; as max_pool_code. INT8 takes no addend: the two tensors' scales differ.
template <class Runner>
int max_unpool(const UnpoolCall& call, Runner&& run)
{
    if (!supported(call.type, call.format, call.code_format) || !detail::is_shape(call.windows)) return bad_argument;
    if (call.type == Type::int8 && call.addend != nullptr) return bad_argument;
    if ((call.extra_rows | call.extra_columns) & ~1) return bad_argument;
    const Shape& in = call.windows;
    const std::int64_t planes = in.n * detail::most_channels(call.format, call.code_format, in.c);
    const bool wide = call.wide || planes * (2 * in.h + 1) * (2 * in.w + 1) >= detail::narrow_limit;
    const auto go = [&](auto element, auto index) {
        return detail::unpool<decltype(element), decltype(index)>(call, run);
    };
    switch (call.type) {
        case Type::fp32: return wide ? go(float{}, std::int64_t{}) : go(float{}, std::uint32_t{});
        case Type::fp16: return wide ? go(Half{}, std::int64_t{}) : go(Half{}, std::uint32_t{});
        case Type::int8: break;
    }
    return wide ? go(std::int8_t{}, std::int64_t{}) : go(std::int8_t{}, std::uint32_t{});
}

}  // namespace edgeseg
