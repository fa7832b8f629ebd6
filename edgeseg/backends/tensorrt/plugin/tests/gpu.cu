// On a device: enqueue through IPluginV3 against the same bodies on the host, bit by bit, and the bandwidth beside a
// device-to-device copy of as many. Usage: gpu LIBRARY [--compare|--brief]; with --compare nothing is timed, for those who
// watch every access; with --brief once. Exits 0, 1 with what did not hold, or 77 where there is no device.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstring>
#include <random>

#include "edgeseg_plugin.h"
#include "pictures.h"
#include "plugins.h"
#include "unpooling.h"

namespace {

using namespace testing;
using nvinfer1::DataType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

void require(cudaError_t status)
{
    if (status == cudaSuccess) return;
    std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(status));
    std::exit(1);
}

using Bytes = std::vector<char>;

// Device memory; `pad` bytes after it are watched.
class Buffer {
public:
    static constexpr size_t pad = 256;
    static constexpr int fill = 0x5a;

    explicit Buffer(size_t bytes) : bytes_(bytes)
    {
        require(cudaMalloc(&memory_, bytes + pad));
        require(cudaMemset(memory_, fill, bytes + pad));
    }
    explicit Buffer(const Bytes& from) : Buffer(from.size())
    {
        require(cudaMemcpy(memory_, from.data(), from.size(), cudaMemcpyHostToDevice));
    }
    Buffer(const Buffer&) = delete;
    ~Buffer() { cudaFree(memory_); }
    void* data() const { return memory_; }
    Bytes bytes() const
    {
        Bytes out(bytes_ + pad);
        require(cudaMemcpy(out.data(), memory_, out.size(), cudaMemcpyDeviceToHost));
        for (size_t i = bytes_; i < out.size(); ++i) {
            if (out[i] != fill) std::fprintf(stderr, "written past the end\n"), std::exit(1);
        }
        out.resize(bytes_);
        return out;
    }

private:
    void* memory_ = nullptr;
    size_t bytes_;
};

struct OnHost {
    template <class Body, class Index>
    int operator()(const Body& body, Index items) const
    {
        for (Index i = 0; i < items; ++i) body(i);
        return 0;
    }
};

struct Combination {
    const char* name;
    edgeseg::Type type;
    edgeseg::Format value, code;
};

constexpr Combination combinations[] = {
    {"fp32 linear", edgeseg::Type::fp32, edgeseg::Format::linear, edgeseg::Format::linear},
    {"fp16 linear", edgeseg::Type::fp16, edgeseg::Format::linear, edgeseg::Format::linear},
    {"fp16 hwc8, code chw32", edgeseg::Type::fp16, edgeseg::Format::hwc8, edgeseg::Format::chw32},
    {"int8 linear", edgeseg::Type::int8, edgeseg::Format::linear, edgeseg::Format::linear},
    {"int8 chw32", edgeseg::Type::int8, edgeseg::Format::chw32, edgeseg::Format::chw32},
#if NV_TENSORRT_VERSION >= 101600
    {"fp16 hwc8, code hwc16", edgeseg::Type::fp16, edgeseg::Format::hwc8, edgeseg::Format::hwc16},
    {"int8 hwc16", edgeseg::Type::int8, edgeseg::Format::hwc16, edgeseg::Format::hwc16},
#endif
};

DataType trt(edgeseg::Type type)
{
    return type == edgeseg::Type::fp32 ? DataType::kFLOAT : type == edgeseg::Type::fp16 ? DataType::kHALF : DataType::kINT8;
}

TensorFormat trt(edgeseg::Format format)
{
    switch (format) {
        case edgeseg::Format::hwc8: return TensorFormat::kHWC8;
        case edgeseg::Format::hwc16: return TensorFormat::kHWC16;
        case edgeseg::Format::chw32: return TensorFormat::kCHW32;
        case edgeseg::Format::linear: break;
    }
    return TensorFormat::kLINEAR;
}

size_t size_of(edgeseg::Type type) { return type == edgeseg::Type::fp32 ? 4 : type == edgeseg::Type::fp16 ? 2 : 1; }

size_t bytes_of(edgeseg::Format format, edgeseg::Shape s, size_t element)
{
    return static_cast<size_t>(s.n * edgeseg::Layout::of(format, s.c).channels() * s.h * s.w) * element;
}

PluginTensorDesc desc(DataType type, edgeseg::Format format, edgeseg::Shape s)
{
    return tensor(type, trt(format), s.n, s.c, s.h, s.w);
}

// Small multiples of a power of two, so that ties are common; exact in every type, and so are sums of two of them.
Bytes numbers(edgeseg::Type type, size_t bytes, unsigned seed)
{
    std::mt19937 random(seed);
    Bytes out(bytes);
    for (size_t i = 0; i < bytes; i += size_of(type)) {
        const int number = static_cast<int>(random() % 41) - 20;
        const float real = static_cast<float>(number) / 8.f;
        edgeseg::Half half;
        edgeseg::from_float(real, half);
        const auto whole = static_cast<int8_t>(number);
        const void* from = type == edgeseg::Type::fp32   ? static_cast<const void*>(&real)
                           : type == edgeseg::Type::fp16 ? static_cast<const void*>(&half)
                                                         : static_cast<const void*>(&whole);
        std::memcpy(&out[i], from, size_of(type));
    }
    return out;
}

int failures = 0;

void check(bool holds, const char* what, const char* name, edgeseg::Shape s)
{
    if (holds) return;
    ++failures;
    std::printf("FAILED: %s, %s, %lldx%lldx%lldx%lld\n", what, name, static_cast<long long>(s.n),
                static_cast<long long>(s.c), static_cast<long long>(s.h), static_cast<long long>(s.w));
}

void compare(Library& library, const Combination& c, edgeseg::Shape in, bool with_addend)
{
    const edgeseg::Shape out{in.n, in.c, in.h / 2, in.w / 2};
    const size_t element = size_of(c.type);
    const Bytes x = numbers(c.type, bytes_of(c.value, in, element), 1);
    Bytes value(bytes_of(c.value, out, element)), code(bytes_of(c.code, out, 1)), back(x.size());
    const Bytes addend = with_addend ? numbers(c.type, x.size(), 2) : Bytes();
    // std::vector's memory is aligned to 16 bytes, as the packed bodies need.
    edgeseg::PoolCall pool_call{c.type, c.value, c.code, in, x.data(), value.data(), code.data()};
    edgeseg::UnpoolCall unpool_call{c.type, c.value, c.code, out, static_cast<int>(in.h % 2), static_cast<int>(in.w % 2),
                                    value.data(), code.data(), with_addend ? addend.data() : nullptr, back.data()};
    check(edgeseg::max_pool_code(pool_call, OnHost{}) == 0 && edgeseg::max_unpool(unpool_call, OnHost{}) == 0, "host",
          c.name, in);

    const Buffer dx(x), dvalue(value.size()), dcode(code.size()), daddend(addend), dback(back.size());
    const Plugin pool = make_pool(library), unpool = make_unpool(library, unpool_call.extra_rows, unpool_call.extra_columns);
    const PluginTensorDesc xs[1] = {desc(trt(c.type), c.value, in)};
    const PluginTensorDesc ys[2] = {desc(trt(c.type), c.value, out), desc(DataType::kINT8, c.code, out)};
    const PluginTensorDesc us[3] = {ys[0], ys[1], xs[0]};
    const void* pool_in[1] = {dx.data()};
    void* pool_out[2] = {dvalue.data(), dcode.data()};
    const void* unpool_in[3] = {dvalue.data(), dcode.data(), daddend.data()};
    void* unpool_out[1] = {dback.data()};
    const int32_t inputs = with_addend ? 3 : 2;
    bool ran = runtime(pool).onShapeChange(xs, 1, ys, 2) == 0 && runtime(unpool).onShapeChange(us, inputs, xs, 1) == 0;
    ran = ran && runtime(pool).enqueue(xs, ys, pool_in, pool_out, nullptr, nullptr) == 0;
    ran = ran && runtime(unpool).enqueue(us, xs, unpool_in, unpool_out, nullptr, nullptr) == 0;
    require(cudaDeviceSynchronize());
    check(ran, "enqueue", c.name, in);
    check(dvalue.bytes() == value, "value", c.name, in);
    check(dcode.bytes() == code, "code", c.name, in);
    check(dback.bytes() == back, "unpooled", c.name, in);
}

// A frame without padding at `memory`, which has room for BGR. Its chroma follows its luma.
edgeseg_frame frame_of(int kind, int height, int width, void* memory)
{
    const std::int64_t chroma_row = (width + 1) / 2 * 2;
    return {kind, height, width, EDGESEG_BT709, 0, memory, (kind ? 1 : 3) * static_cast<std::int64_t>(width),
            static_cast<char*>(memory) + static_cast<std::int64_t>(height) * width, chroma_row};
}

// Frames of one size for a net of another, and of the same.
void compare_pictures(Library& library, int net_height, int net_width)
{
    const int height = 71, width = 94, classes = 11;
    std::mt19937 random(3);
    Bytes frame(static_cast<size_t>(3 * height * width)), palette(1024);
    for (char& byte : frame) byte = static_cast<char>(random());
    for (char& byte : palette) byte = static_cast<char>(random());
    const Buffer dframe(frame), dpalette(palette);
    auto* preprocess = reinterpret_cast<decltype(&edgeseg_preprocess)>(library.symbol("edgeseg_preprocess"));
    auto* overlay = reinterpret_cast<decltype(&edgeseg_overlay_scores)>(library.symbol("edgeseg_overlay_scores"));
    for (const int half : {0, 1}) {
        for (const int resize : {EDGESEG_BILINEAR, EDGESEG_AREA}) {
            for (const int kind : {EDGESEG_BGR, EDGESEG_NV12}) {
                edgeseg_frame f = frame_of(kind, height, width, frame.data());
                const edgeseg_input input{net_height, net_width, half, 1, resize, {0.017f, 0.018f, 0.019f}, {-1, -2, -3}};
                Bytes expected(static_cast<size_t>(3 * net_height * net_width) * (half ? 2 : 4));
                edgeseg::preprocess(&f, &input, expected.data(), OnHost{});
                f = frame_of(kind, height, width, dframe.data());
                const Buffer out(expected.size());
                check(preprocess(&f, &input, out.data(), nullptr) == 0, "preprocess", "call", {1, 3, height, width});
                check(out.bytes() == expected, "preprocess", kind ? "nv12" : "bgr", {1, 3, height, width});
            }
        }
        const Bytes scores = numbers(half ? edgeseg::Type::fp16 : edgeseg::Type::fp32,
                                     static_cast<size_t>(classes * net_height * net_width) * (half ? 2 : 4), 4);
        Bytes picture(frame.size()), labels(static_cast<size_t>(height * width));
        for (const int kind : {EDGESEG_BGR, EDGESEG_NV12}) {
            edgeseg_overlay o{frame_of(kind, height, width, frame.data()), picture.data(), 3 * width, palette.data(), 0.4,
                              labels.data()};
            edgeseg::overlay_scores(scores.data(), half != 0, classes, net_height, net_width, &o, OnHost{});
            const Buffer dscores(scores), dpicture(picture.size()), dlabels(labels.size());
            o = {frame_of(kind, height, width, dframe.data()), dpicture.data(), 3 * width, dpalette.data(), 0.4, dlabels.data()};
            check(overlay(dscores.data(), half, classes, net_height, net_width, &o, nullptr) == 0, "overlay", "call", {});
            check(dpicture.bytes() == picture && dlabels.bytes() == labels, "overlay", kind ? "nv12" : "bgr",
                  {1, 3, height, width});
        }
    }
}

// Once more with frames whose rows are words, and a picture on one: the overlay's fast way.
void compare_aligned(Library& library)
{
    const int height = 70, width = 96, net_height = 35, net_width = 48;
    std::mt19937 random(5);
    Bytes frame(static_cast<size_t>(3 * height * width)), palette(1024), map(static_cast<size_t>(net_height * net_width));
    for (char& byte : frame) byte = static_cast<char>(random());
    for (char& byte : palette) byte = static_cast<char>(random());
    for (char& byte : map) byte = static_cast<char>(random());
    auto* overlay = reinterpret_cast<decltype(&edgeseg_overlay_labels)>(library.symbol("edgeseg_overlay_labels"));
    for (const int kind : {EDGESEG_BGR, EDGESEG_NV12}) {
        const bool in_place = kind == EDGESEG_BGR;
        Bytes picture(frame.size()), labels(static_cast<size_t>(height * width));
        edgeseg_overlay o{frame_of(kind, height, width, frame.data()), picture.data(), 3 * width, palette.data(), 0.6,
                          labels.data()};
        edgeseg::overlay_labels(map.data(), net_height, net_width, &o, OnHost{});
        const Buffer dframe(frame), dpicture(picture.size()), dpalette(palette), dmap(map), dlabels(labels.size());
        const Buffer& on = in_place ? dframe : dpicture;
        o = {frame_of(kind, height, width, dframe.data()), on.data(), 3 * width, dpalette.data(), 0.6, dlabels.data()};
        check(overlay(dmap.data(), net_height, net_width, &o, nullptr) == 0, "overlay", "aligned", {});
        check(on.bytes() == picture && dlabels.bytes() == labels, "overlay", in_place ? "in place" : "nv12, aligned",
              {1, 3, height, width});
    }
}

// How often a call is timed, and how many of them at a time, after how many.
int warm = 5, timed = 30, repeats = 10;

// Median milliseconds of `call`, by events; the first calls warm up.
template <class Call>
float milliseconds(Call&& call)
{
    cudaEvent_t start, stop;
    require(cudaEventCreate(&start));
    require(cudaEventCreate(&stop));
    std::vector<float> times;
    for (int i = 0; i < warm + timed; ++i) {
        require(cudaEventRecord(start));
        for (int r = 0; r < repeats; ++r) call();
        require(cudaEventRecord(stop));
        require(cudaEventSynchronize(stop));
        float time = 0;
        require(cudaEventElapsedTime(&time, start, stop));
        if (i >= warm) times.push_back(time / static_cast<float>(repeats));
    }
    require(cudaEventDestroy(start));
    require(cudaEventDestroy(stop));
    std::nth_element(times.begin(), times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2), times.end());
    return times[times.size() / 2];
}

void measure(Library& library, const Combination& c, edgeseg::Shape in)
{
    const edgeseg::Shape out{in.n, in.c, in.h / 2, in.w / 2};
    const size_t element = size_of(c.type), x = bytes_of(c.value, in, element), v = bytes_of(c.value, out, element);
    const size_t k = bytes_of(c.code, out, 1), moved = x + v + k;
    size_t free = 0, total = 0;
    require(cudaMemGetInfo(&free, &total));
    if (3 * moved > free) return;  // the tensors, the copy's two, and some room
    const Buffer dx(numbers(c.type, x, 1)), dvalue(v), dcode(k), from(moved / 2), to(moved / 2);
    const Plugin pool = make_pool(library);
    const Plugin unpool = make_unpool(library, static_cast<int>(in.h % 2), static_cast<int>(in.w % 2));
    const PluginTensorDesc xs[1] = {desc(trt(c.type), c.value, in)};
    const PluginTensorDesc ys[2] = {desc(trt(c.type), c.value, out), desc(DataType::kINT8, c.code, out)};
    const void* pool_in[1] = {dx.data()};
    void* pool_out[2] = {dvalue.data(), dcode.data()};
    const void* unpool_in[2] = {dvalue.data(), dcode.data()};
    void* unpool_out[1] = {dx.data()};
    runtime(pool).onShapeChange(xs, 1, ys, 2);
    runtime(unpool).onShapeChange(ys, 2, xs, 1);
    const float copy = milliseconds(
        [&] { require(cudaMemcpyAsync(to.data(), from.data(), moved / 2, cudaMemcpyDeviceToDevice, nullptr)); });
    const float down = milliseconds([&] { runtime(pool).enqueue(xs, ys, pool_in, pool_out, nullptr, nullptr); });
    const float up = milliseconds([&] { runtime(unpool).enqueue(ys, xs, unpool_in, unpool_out, nullptr, nullptr); });
    const auto rate = [&](float ms) { return static_cast<double>(moved) / 1e6 / static_cast<double>(ms); };
    std::printf("%-24s %lldx%lldx%lldx%lld  pool %.4f ms %.0f GB/s  unpool %.4f ms %.0f GB/s  copy %.4f ms %.0f GB/s\n",
                c.name, static_cast<long long>(in.n), static_cast<long long>(in.c), static_cast<long long>(in.h),
                static_cast<long long>(in.w), static_cast<double>(down), rate(down), static_cast<double>(up), rate(up),
                static_cast<double>(copy), rate(copy));
}

// FP16 scores whose labels lie in patches of 16 x 16, about as a street's do: neighbours mostly have one colour.
Bytes patches(int height, int width, int classes)
{
    std::mt19937 random(7);
    std::vector<int> labels(static_cast<size_t>((height / 16 + 1) * (width / 16 + 1)));
    for (int& label : labels) label = static_cast<int>(random() % static_cast<unsigned>(classes));
    const size_t plane = static_cast<size_t>(height) * static_cast<size_t>(width);
    std::vector<edgeseg::Half> scores(plane * static_cast<size_t>(classes), edgeseg::Half{0});
    for (int y = 0; y < height; ++y) {
        for (int x = 0; x < width; ++x) {
            const auto label = static_cast<size_t>(labels[static_cast<size_t>(y / 16 * (width / 16 + 1) + x / 16)]);
            scores[label * plane + static_cast<size_t>(y) * static_cast<size_t>(width) + static_cast<size_t>(x)].bits = 0x3c00;
        }
    }
    Bytes out(2 * scores.size());
    std::memcpy(out.data(), scores.data(), out.size());
    return out;
}

// What stands before and after a net, for frames of `height` x `width` and a net of `net_height` x `net_width` in FP16.
// The floor: every byte of the frame read once, and for the overlay the scores; the results written once.
void measure_pictures(Library& library, int height, int width, int net_height, int net_width, int classes)
{
    const auto pixels = static_cast<size_t>(height) * static_cast<size_t>(width);
    const auto net_pixels = static_cast<size_t>(net_height) * static_cast<size_t>(net_width);
    const Buffer frame(3 * pixels), picture(3 * pixels), labels(pixels), palette(1024);
    const Buffer tensor(6 * net_pixels), scores(patches(net_height, net_width, classes));
    auto* preprocess = reinterpret_cast<decltype(&edgeseg_preprocess)>(library.symbol("edgeseg_preprocess"));
    auto* overlay = reinterpret_cast<decltype(&edgeseg_overlay_scores)>(library.symbol("edgeseg_overlay_scores"));
    const edgeseg_input input{net_height, net_width, 1, 1, EDGESEG_AS_PYTHON, {0.017f, 0.018f, 0.019f}, {-1, -2, -3}};
    const auto tell = [&](const char* name, size_t moved, float ms) {
        const Buffer from(moved / 2), to(moved / 2);
        const float copy = milliseconds(
            [&] { require(cudaMemcpyAsync(to.data(), from.data(), moved / 2, cudaMemcpyDeviceToDevice, nullptr)); });
        std::printf("%-16s %dx%d net %dx%d  %zu bytes  %.4f ms  copy %.4f ms\n", name, height, width, net_height, net_width,
                    moved, static_cast<double>(ms), static_cast<double>(copy));
    };
    for (const int kind : {EDGESEG_BGR, EDGESEG_NV12}) {
        const size_t read = kind ? 3 * pixels / 2 : 3 * pixels;
        const edgeseg_frame f = frame_of(kind, height, width, frame.data());
        const edgeseg_overlay o{f, picture.data(), 3 * width, palette.data(), 0.5, labels.data()};
        tell(kind ? "preprocess nv12" : "preprocess bgr", read + 6 * net_pixels,
             milliseconds([&] { preprocess(&f, &input, tensor.data(), nullptr); }));
        tell(kind ? "overlay nv12" : "overlay bgr", 2 * net_pixels * static_cast<size_t>(classes) + read + 4 * pixels,
             milliseconds([&] { overlay(scores.data(), 1, classes, net_height, net_width, &o, nullptr); }));
    }
}

}  // namespace

int main(int count, char** arguments)
{
    const std::string option = count > 2 ? arguments[2] : "";
    if (count < 2 || count > 3 || !(option.empty() || option == "--compare" || option == "--brief")) {
        return std::fprintf(stderr, "usage: %s LIBRARY [--compare|--brief]\n", arguments[0]), 2;
    }
    if (option == "--brief") warm = 0, timed = 1, repeats = 1;
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return std::printf("no CUDA device\n"), 77;
    Library library(arguments[1]);
    const edgeseg::Shape shapes[] = {{1, 1, 2, 2},   {2, 5, 7, 9},    {2, 8, 6, 30},   {1, 16, 11, 33}, {3, 33, 8, 16},
                                     {2, 32, 3, 64}, {1, 9, 2, 127},  {2, 3, 10, 34},  {1, 64, 180, 240}, {2, 20, 91, 123}};
    for (const Combination& c : combinations) {
        for (const edgeseg::Shape& shape : shapes) {
            compare(library, c, shape, false);
            if (c.type != edgeseg::Type::int8) compare(library, c, shape, true);
        }
    }
    compare_pictures(library, 48, 60);
    compare_pictures(library, 71, 94);
    compare_aligned(library);
    for (const std::string& line : library.log()) std::printf("logged: %s\n", line.c_str());
    std::printf("%d failed\n", failures);
    if (option == "--compare") return failures == 0 ? 0 : 1;
    cudaDeviceProp device{};
    require(cudaGetDeviceProperties(&device, 0));
    std::printf("%s; median of %d batches of %d calls; bytes read and written once; the copy moves as many\n", device.name,
                timed, repeats);
    // SegNet's five poolings at two sizes, and one whose rows are not aligned.
    const std::int64_t channels[] = {64, 128, 256, 512, 512}, sizes[][2] = {{352, 480}, {1056, 1920}};
    for (const Combination& c : combinations) {
        for (const std::int64_t batch : {1, 8}) {
            for (const auto& size : sizes) {
                for (int level = 0; level < 5; ++level) {
                    measure(library, c, {batch, channels[level], size[0] >> level, size[1] >> level});
                }
            }
        }
        measure(library, c, {8, 64, 361, 481});
    }
    const int nets[][5] = {{1080, 1920, 352, 480, 11}, {1080, 1920, 1056, 1920, 11}, {2160, 3840, 512, 1024, 19}};
    for (const auto& n : nets) measure_pictures(library, n[0], n[1], n[2], n[3], n[4]);
    return failures == 0 ? 0 : 1;
}
