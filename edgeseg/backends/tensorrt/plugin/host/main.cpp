// The kernels' bodies on the CPU. Reads one call a line from standard input, `NAME key=value ...`; arrays are raw files.
// Memory that a call may not touch is not there: arrays are allocated to the byte, so that AddressSanitizer sees it.
//
//   pool    type= format= code_format= shape=N,C,H,W x=FILE value=FILE code=FILE
//   unpool  type= format= code_format= shape=N,C,h,w extra=R,C value=FILE code=FILE [addend=FILE] out=FILE
//   preprocess  kind= frame=H,W pitch= plane=FILE [chroma=FILE chroma_pitch= matrix= full=] size=H,W half= rgb= resize=
//               gain=a,b,c offset=a,b,c out=FILE
//   overlay  scores=FILE|labels=FILE [half= classes=] size=h,w [kind=] frame=FILE of=H,W [pitch=] [chroma=FILE
//            chroma_pitch= matrix= full=] palette=FILE alpha= picture=FILE labels_out=FILE
//   divide  by= numbers=FILE out=FILE  (uint32)
// Optional: wide=1 (64-bit indices), skew=BYTES (addresses that far from 256-byte alignment), reverse=1 (last item first).
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "pictures.h"
#include "unpooling.h"

namespace {

using Fields = std::map<std::string, std::string>;

// Bytes at a device's alignment, `skew` off it; the allocation ends where they end.
class Array {
public:
    Array(std::size_t bytes, std::size_t skew) : bytes_(bytes), skew_(skew)
    {
        void* memory = nullptr;
        if (posix_memalign(&memory, 256, bytes + skew + (bytes + skew == 0)) != 0) throw std::runtime_error("no memory");
        memory_.reset(memory);
        std::memset(data(), 0xab, bytes);  // what a call leaves unwritten is seen
    }
    char* data() { return static_cast<char*>(memory_.get()) + skew_; }
    std::size_t size() const { return bytes_; }

private:
    struct Free {
        void operator()(void* memory) const { std::free(memory); }
    };
    std::unique_ptr<void, Free> memory_;
    std::size_t bytes_, skew_;
};

struct EachItem {
    bool reverse;

    template <class Body, class Index>
    int operator()(const Body& body, Index items) const
    {
        for (Index i = 0; i < items; ++i) body(reverse ? items - 1 - i : i);
        return 0;
    }
};

const std::string& get(const Fields& fields, const std::string& key)
{
    const auto found = fields.find(key);
    if (found == fields.end()) throw std::runtime_error("missing " + key);
    return found->second;
}

template <class T>
std::vector<T> numbers(const Fields& fields, const std::string& key, std::size_t count)
{
    std::istringstream text(get(fields, key));
    std::vector<T> out;
    for (std::string part; std::getline(text, part, ',');) {
        std::istringstream one(part);
        T number{};
        if (!(one >> number)) throw std::runtime_error(key + ": not a number: " + part);
        out.push_back(number);
    }
    if (out.size() != count) throw std::runtime_error(key + ": expected " + std::to_string(count) + " numbers");
    return out;
}

int number(const Fields& fields, const std::string& key, int otherwise = 0)
{
    return fields.count(key) ? numbers<int>(fields, key, 1)[0] : otherwise;
}

Array read(const Fields& fields, const std::string& key, std::size_t skew)
{
    std::ifstream file(get(fields, key), std::ios::binary | std::ios::ate);
    if (!file) throw std::runtime_error("cannot read " + get(fields, key));
    Array array(static_cast<std::size_t>(file.tellg()), skew);
    file.seekg(0);
    file.read(array.data(), static_cast<std::streamsize>(array.size()));
    return array;
}

void write(const Fields& fields, const std::string& key, Array& array)
{
    std::ofstream file(get(fields, key), std::ios::binary);
    file.write(array.data(), static_cast<std::streamsize>(array.size()));
    if (!file.flush()) throw std::runtime_error("cannot write " + get(fields, key));
}

template <class Choice>
Choice chosen(const Fields& fields, const std::string& key, const std::map<std::string, Choice>& choices)
{
    const auto found = choices.find(get(fields, key));
    if (found == choices.end()) throw std::runtime_error("unknown " + key + ": " + get(fields, key));
    return found->second;
}

const std::map<std::string, edgeseg::Type> types{
    {"fp32", edgeseg::Type::fp32}, {"fp16", edgeseg::Type::fp16}, {"int8", edgeseg::Type::int8}};
const std::map<std::string, edgeseg::Format> formats{{"linear", edgeseg::Format::linear},
                                                     {"hwc8", edgeseg::Format::hwc8},
                                                     {"hwc16", edgeseg::Format::hwc16},
                                                     {"chw32", edgeseg::Format::chw32}};

std::size_t elements(edgeseg::Format format, edgeseg::Shape s)
{
    return static_cast<std::size_t>(s.n * edgeseg::Layout::of(format, s.c).channels() * s.h * s.w);
}

std::size_t size_of(edgeseg::Type type)
{
    return type == edgeseg::Type::fp32 ? 4 : type == edgeseg::Type::fp16 ? 2 : 1;
}

// A file that is too short would read like a kernel that reads too far.
void require(const Array& array, std::size_t bytes, const char* what)
{
    if (array.size() == bytes) return;
    throw std::runtime_error(std::string(what) + ": " + std::to_string(array.size()) + " bytes, expected " +
                             std::to_string(bytes));
}

int pool(const Fields& f, std::size_t skew, const EachItem& run)
{
    const auto s = numbers<std::int64_t>(f, "shape", 4);
    edgeseg::PoolCall call{chosen(f, "type", types), chosen(f, "format", formats), chosen(f, "code_format", formats),
                           {s[0], s[1], s[2], s[3]}, nullptr, nullptr, nullptr, number(f, "wide") != 0};
    const edgeseg::Shape out{s[0], s[1], s[2] / 2, s[3] / 2};
    Array x = read(f, "x", skew);
    require(x, elements(call.format, call.in) * size_of(call.type), "x");
    Array value(elements(call.format, out) * size_of(call.type), skew), code(elements(call.code_format, out), skew);
    call.x = x.data(), call.value = value.data(), call.code = code.data();
    if (const int error = edgeseg::max_pool_code(call, run)) return error;
    write(f, "value", value);
    write(f, "code", code);
    return 0;
}

int unpool(const Fields& f, std::size_t skew, const EachItem& run)
{
    const auto s = numbers<std::int64_t>(f, "shape", 4);
    const auto extra = numbers<int>(f, "extra", 2);
    edgeseg::UnpoolCall call{chosen(f, "type", types), chosen(f, "format", formats), chosen(f, "code_format", formats),
                             {s[0], s[1], s[2], s[3]}, extra[0], extra[1], nullptr, nullptr, nullptr, nullptr,
                             number(f, "wide") != 0};
    const edgeseg::Shape out{s[0], s[1], 2 * s[2] + extra[0], 2 * s[3] + extra[1]};
    Array value = read(f, "value", skew), code = read(f, "code", skew);
    require(value, elements(call.format, call.windows) * size_of(call.type), "value");
    require(code, elements(call.code_format, call.windows), "code");
    Array to(elements(call.format, out) * size_of(call.type), skew);
    std::unique_ptr<Array> addend;
    if (f.count("addend")) {
        addend = std::make_unique<Array>(read(f, "addend", skew));
        require(*addend, to.size(), "addend");
        call.addend = addend->data();
    }
    call.value = value.data(), call.code = code.data(), call.out = to.data();
    if (const int error = edgeseg::max_unpool(call, run)) return error;
    write(f, "out", to);
    return 0;
}

int preprocess(const Fields& f, std::size_t skew, const EachItem& run)
{
    const auto of = numbers<int>(f, "frame", 2), size = numbers<int>(f, "size", 2);
    const auto gain = numbers<float>(f, "gain", 3), offset = numbers<float>(f, "offset", 3);
    Array plane = read(f, "plane", skew), chroma = f.count("chroma") ? read(f, "chroma", skew) : Array(0, 0);
    const edgeseg_frame frame{number(f, "kind"), of[0], of[1], number(f, "matrix"), number(f, "full"), plane.data(),
                              number(f, "pitch"), chroma.data(), number(f, "chroma_pitch")};
    const edgeseg_input input{size[0], size[1], number(f, "half"), number(f, "rgb"), number(f, "resize"),
                              {gain[0], gain[1], gain[2]}, {offset[0], offset[1], offset[2]}};
    Array out(static_cast<std::size_t>(3 * size[0] * size[1]) * (input.is_half ? 2 : 4), skew / 4 * 4);
    if (const int error = edgeseg::preprocess(&frame, &input, out.data(), run)) return error;
    write(f, "out", out);
    return 0;
}

int overlay(const Fields& f, std::size_t skew, const EachItem& run)
{
    const auto of = numbers<int>(f, "of", 2), size = numbers<int>(f, "size", 2);
    const int kind = number(f, "kind"), pitch = number(f, "pitch", (kind ? 1 : 3) * of[1]);
    const int picture_pitch = kind ? 3 * of[1] : pitch;
    Array frame = read(f, "frame", skew), palette = read(f, "palette", skew);
    Array chroma = kind ? read(f, "chroma", skew) : Array(0, 0);
    Array picture(static_cast<std::size_t>(of[0] * picture_pitch), skew);
    Array labels_out(static_cast<std::size_t>(of[0] * of[1]), skew);
    require(frame, static_cast<std::size_t>(of[0] * pitch), "frame");
    const edgeseg_overlay o{{kind, of[0], of[1], number(f, "matrix"), number(f, "full"), frame.data(), pitch, chroma.data(),
                             number(f, "chroma_pitch")},
                            picture.data(), picture_pitch, palette.data(), numbers<double>(f, "alpha", 1)[0],
                            labels_out.data()};
    int error = 0;
    if (f.count("scores")) {
        Array scores = read(f, "scores", skew);
        error = edgeseg::overlay_scores(scores.data(), number(f, "half") != 0, number(f, "classes"), size[0], size[1],
                                        &o, run);
    } else {
        Array labels = read(f, "labels", skew);
        error = edgeseg::overlay_labels(labels.data(), size[0], size[1], &o, run);
    }
    if (error) return error;
    write(f, "picture", picture);
    write(f, "labels_out", labels_out);
    return 0;
}

int divide(const Fields& f)
{
    Array numbers = read(f, "numbers", 0), out(numbers.size(), 0);
    const auto by = edgeseg::Divisor::of(static_cast<std::uint32_t>(number(f, "by")));
    for (std::size_t i = 0; i < numbers.size(); i += 4) {
        std::uint32_t quotient = 0;
        std::memcpy(&quotient, numbers.data() + i, 4);
        quotient = by.divide(quotient);
        std::memcpy(out.data() + i, &quotient, 4);
    }
    write(f, "out", out);
    return 0;
}

int call(const std::string& line)
{
    std::istringstream words(line);
    std::string name;
    words >> name;
    Fields fields;
    for (std::string word; words >> word;) {
        const auto equals = word.find('=');
        if (equals == std::string::npos) throw std::runtime_error("not key=value: " + word);
        fields[word.substr(0, equals)] = word.substr(equals + 1);
    }
    const auto skew = static_cast<std::size_t>(number(fields, "skew"));
    const EachItem run{number(fields, "reverse") != 0};
    if (name == "pool") return pool(fields, skew, run);
    if (name == "unpool") return unpool(fields, skew, run);
    if (name == "preprocess") return preprocess(fields, skew, run);
    if (name == "overlay") return overlay(fields, skew, run);
    if (name == "divide") return divide(fields);
    throw std::runtime_error("unknown call: " + name);
}

}  // namespace

int main()
{
    for (std::string line; std::getline(std::cin, line);) {
        try {
            std::cout << call(line) << '\n';
        } catch (const std::exception& error) {
            std::cerr << error.what() << " in: " << line << '\n';
            return 2;
        }
    }
    return 0;
}
