// Drives the plugins as TensorRT does, with its headers only and no device: creators, fields, shapes, types, every
// combination of formats, serialization, clones. Usage: driver LIBRARY. Exits 0, or 1 with what did not hold.
#include <algorithm>
#include <array>
#include <set>
#include <tuple>

#include "edgeseg_plugin.h"
#include "plugins.h"

namespace {

using namespace testing;
using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

int failures = 0, checks = 0;

void check(bool holds, const std::string& what)
{
    ++checks;
    if (!holds) std::printf("FAILED: %s\n", what.c_str()), ++failures;
}

// What was logged since the last call.
std::string said(Library& library)
{
    std::string all;
    for (const std::string& line : library.log()) all += line + "\n";
    library.log().clear();
    return all;
}

void check_said(Library& library, const std::string& part)
{
    const std::string all = said(library);
    check(all.find(part) != std::string::npos, "logged '" + part + "', got '" + all + "'");
}

void check_creators(Library& library)
{
    check(library.count() == 2, "two creators");
    const char* names[] = {"EdgesegMaxPoolCode", "EdgesegMaxUnpool"};
    for (size_t i = 0; i < 2; ++i) {
        auto& creator = library.creator(i);
        check(std::string(creator.getInterfaceInfo().kind) == "PLUGIN CREATOR_V3ONE", "a V3 creator");
        check(std::string(creator.getPluginName()) == names[i], names[i]);
        check(std::string(creator.getPluginVersion()) == "1", "version 1");
        check(std::string(creator.getPluginNamespace()).empty(), "no namespace");
        check(creator.getFieldNames()->nbFields == (i == 0 ? 0 : 2), "its fields");
    }
    const PluginField* fields = library.creator(1).getFieldNames()->fields;
    check(std::string(fields[0].name) == "extra_rows" && std::string(fields[1].name) == "extra_columns", "field names");
    check(reinterpret_cast<int (*)()>(library.symbol("edgeseg_plugin_version"))() == EDGESEG_PLUGIN_ABI, "ABI");
    const std::string text = reinterpret_cast<const char* (*)()>(library.symbol("edgeseg_plugin_build"))();
    const std::string trt = std::to_string(NV_TENSORRT_MAJOR) + "." + std::to_string(NV_TENSORRT_MINOR);
    check(text.find("abi=2 tensorrt=" + trt + ".") == 0, "what it was built with: " + text);
}

void check_bad_fields(Library& library)
{
    const int32_t zero = 0, seven = 7, minus = -1;
    const int64_t wide = 1;
    const float real = 1.f;
    const PluginField good{"extra_rows", &zero, PluginFieldType::kINT32, 1};
    const std::vector<std::pair<std::vector<PluginField>, std::string>> cases{
        {std::vector<PluginField>{}, "extra_rows is missing"},
        {{good}, "extra_columns is missing"},
        {{good, {"extra_columns", &seven, PluginFieldType::kINT32, 1}}, "got 7, expected 0 or 1"},
        {{good, {"extra_columns", &minus, PluginFieldType::kINT32, 1}}, "got -1, expected 0 or 1"},
        {{good, {"extra_columns", &wide, PluginFieldType::kINT64, 1}}, "expected one INT32"},
        {{good, {"extra_columns", &real, PluginFieldType::kFLOAT32, 1}}, "expected one INT32"},
        {{good, {"extra_columns", &zero, PluginFieldType::kINT32, 0}}, "expected one INT32"},
        {{good, {"extra_columns", nullptr, PluginFieldType::kINT32, 1}}, "expected one INT32"},
        {{good, {nullptr, &zero, PluginFieldType::kINT32, 1}}, "extra_columns is missing"},
    };
    for (const auto& [fields, message] : cases) {
        const nvinfer1::PluginFieldCollection all{static_cast<int32_t>(fields.size()), fields.data()};
        const Plugin plugin(library.creator(1).createPlugin("x", &all, nvinfer1::TensorRTPhase::kBUILD));
        check(plugin == nullptr, "refused: " + message);
        check_said(library, message);
    }
    const Plugin plugin(library.creator(1).createPlugin("x", nullptr, nvinfer1::TensorRTPhase::kBUILD));
    check(plugin == nullptr, "refused: no collection");
    check_said(library, "missing");
}

using Sizes = std::vector<std::array<int64_t, 4>>;

// Every output dimension: its number, and whether it is a constant. Channels always are, the others if `constant`.
std::vector<std::pair<int64_t, bool>> shapes(const Plugin& plugin, const Sizes& inputs, bool constant, int32_t outputs,
                                             int32_t* status = nullptr)
{
    Expressions builder;
    std::vector<nvinfer1::DimsExprs> in(inputs.size()), out(static_cast<size_t>(outputs));
    for (size_t i = 0; i < inputs.size(); ++i) {
        in[i].nbDims = 4;
        for (int d = 0; d < 4; ++d) in[i].d[d] = builder.dimension(inputs[i][static_cast<size_t>(d)], constant || d == 1);
    }
    const int32_t code = build(plugin).getOutputShapes(in.data(), static_cast<int32_t>(in.size()), nullptr, 0, out.data(),
                                                       outputs, builder);
    if (status != nullptr) *status = code;
    std::vector<std::pair<int64_t, bool>> flat;
    for (const auto& shape : out) {
        for (int d = 0; d < shape.nbDims; ++d) {
            const Dimension& size = Expressions::of(*shape.d[d]);
            flat.emplace_back(size.number(), size.known());
        }
    }
    return flat;
}

void check_shapes(Library& library)
{
    const Plugin pool = make_pool(library);
    for (const bool constant : {true, false}) {
        const auto got = shapes(pool, {{2, 5, 7, 10}}, constant, 2);
        const std::vector<std::pair<int64_t, bool>> one{{2, constant}, {5, true}, {3, constant}, {5, constant}};
        check(got.size() == 8 && std::equal(one.begin(), one.end(), got.begin()), "shape of value");
        check(got.size() == 8 && std::equal(one.begin(), one.end(), got.begin() + 4), "shape of code");
        for (const int32_t rows : {0, 1}) {
            for (const int32_t columns : {0, 1}) {
                const Plugin unpool = make_unpool(library, rows, columns);
                for (const size_t inputs : {2u, 3u}) {
                    Sizes in{{2, 5, 3, 4}, {2, 5, 3, 4}};
                    if (inputs == 3) in.push_back({2, 5, 6 + rows, 8 + columns});
                    const std::vector<std::pair<int64_t, bool>> expected{
                        {2, constant}, {5, true}, {6 + rows, constant}, {8 + columns, constant}};
                    check(shapes(unpool, in, constant, 1) == expected, "shape of out");
                }
            }
        }
    }
    check(said(library).empty(), "nothing logged for good shapes");
    int32_t status = 0;
    shapes(pool, {{1, 1, 1, 1}, {1, 1, 1, 1}}, true, 2, &status);
    check(status != 0, "a second input is refused");
    check_said(library, "got 2 inputs");
    Expressions builder;
    nvinfer1::DimsExprs flat{}, out[2]{};
    flat.nbDims = 3;
    check(build(pool).getOutputShapes(&flat, 1, nullptr, 0, out, 2, builder) != 0, "three dimensions are refused");
    check_said(library, "4 dimensions");
}

void check_types(Library& library)
{
    const Plugin pool = make_pool(library), unpool = make_unpool(library, 0, 0);
    for (const DataType type : {DataType::kFLOAT, DataType::kHALF, DataType::kINT8, DataType::kINT32, DataType::kBF16}) {
        const bool good = type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kINT8;
        DataType out[2] = {DataType::kBOOL, DataType::kBOOL};
        const bool took = build(pool).getOutputDataTypes(out, 2, &type, 1) == 0;
        check(took == good && (!good || (out[0] == type && out[1] == DataType::kINT8)), "types of the pooling");
        const DataType in[3] = {type, DataType::kINT8, type}, wrong[2] = {type, DataType::kINT32};
        check((build(unpool).getOutputDataTypes(out, 1, in, 2) == 0) == good, "types of the unpooling");
        check(!good || out[0] == type, "type of out");
        check((build(unpool).getOutputDataTypes(out, 1, in, 3) == 0) == (good && type != DataType::kINT8),
              "types with an addend");
        check(build(unpool).getOutputDataTypes(out, 1, wrong, 2) != 0, "an INT32 code is refused");
    }
    check_said(library, "an INT8 addend is not supported");
}

using Combination = std::vector<std::pair<DataType, TensorFormat>>;

// Every combination that the plugin says yes to, position by position, as TensorRT asks.
void collect(const Plugin& plugin, int32_t inputs, int32_t outputs, Combination& so_far, std::set<Combination>& found)
{
    const auto position = static_cast<int32_t>(so_far.size());
    if (position == inputs + outputs) {
        found.insert(so_far);
        return;
    }
    for (int type = 0; type <= 9; ++type) {
        for (int format = 0; format <= 12; ++format) {
            so_far.emplace_back(static_cast<DataType>(type), static_cast<TensorFormat>(format));
            // What comes after `position` must not be looked at: it is not there, and AddressSanitizer watches.
            std::vector<DynamicPluginTensorDesc> tensors(so_far.size());
            for (size_t i = 0; i < so_far.size(); ++i) {
                tensors[i].desc = tensor(so_far[i].first, so_far[i].second, 1, 8, 4, 4);
            }
            if (build(plugin).supportsFormatCombination(position, tensors.data(), inputs, outputs)) {
                collect(plugin, inputs, outputs, so_far, found);
            }
            so_far.pop_back();
        }
    }
}

// (value's type, value's format, code's format), written out by hand.
std::vector<std::tuple<DataType, TensorFormat, TensorFormat>> allowed()
{
    std::vector<std::tuple<DataType, TensorFormat, TensorFormat>> all{
        {DataType::kFLOAT, TensorFormat::kLINEAR, TensorFormat::kLINEAR},
        {DataType::kHALF, TensorFormat::kLINEAR, TensorFormat::kLINEAR},
        {DataType::kHALF, TensorFormat::kHWC8, TensorFormat::kCHW32},
        {DataType::kINT8, TensorFormat::kLINEAR, TensorFormat::kLINEAR},
        {DataType::kINT8, TensorFormat::kCHW32, TensorFormat::kCHW32},
    };
    if (NV_TENSORRT_MAJOR > 10 || NV_TENSORRT_MINOR >= 16) {
        all.emplace_back(DataType::kHALF, TensorFormat::kHWC8, TensorFormat::kHWC16);
        all.emplace_back(DataType::kINT8, TensorFormat::kHWC16, TensorFormat::kHWC16);
    }
    return all;
}

void check_formats(Library& library)
{
    std::set<Combination> pool_expected, unpool_expected, addend_expected;
    for (const auto& [type, value, code] : allowed()) {
        const std::pair<DataType, TensorFormat> v{type, value}, c{DataType::kINT8, code};
        pool_expected.insert({v, v, c});
        unpool_expected.insert({v, c, v});
        if (type != DataType::kINT8) addend_expected.insert({v, c, v, v});
    }
    const Plugin pool = make_pool(library), unpool = make_unpool(library, 1, 1);
    Combination none;
    std::set<Combination> found;
    collect(pool, 1, 2, none, found);
    check(found == pool_expected, "formats of the pooling: " + std::to_string(found.size()));
    found.clear();
    collect(unpool, 2, 1, none, found);
    check(found == unpool_expected, "formats of the unpooling: " + std::to_string(found.size()));
    found.clear();
    collect(unpool, 3, 1, none, found);
    check(found == addend_expected, "formats with an addend: " + std::to_string(found.size()));
}

void check_build_and_clone(Library& library)
{
    for (const int32_t rows : {0, 1}) {
        const Plugin unpool = make_unpool(library, rows, 1 - rows);
        const auto* fields = runtime(unpool).getFieldsToSerialize();
        check(fields->nbFields == 2, "two fields are serialized");
        // What TensorRT does when it loads a plan: the fields come back, in memory of their own.
        const Plugin again(library.creator(1).createPlugin("again", fields, nvinfer1::TensorRTPhase::kRUNTIME));
        const Plugin copy(again->clone());
        const Plugin attached(runtime(copy).attachToContext(nullptr));
        for (const Plugin* plugin : {&unpool, &again, &copy, &attached}) {
            const auto* kept = runtime(*plugin).getFieldsToSerialize();
            check(*static_cast<const int32_t*>(kept->fields[0].data) == rows, "extra_rows is kept");
            check(*static_cast<const int32_t*>(kept->fields[1].data) == 1 - rows, "extra_columns is kept");
            check(std::string(core(*plugin).getPluginName()) == "EdgesegMaxUnpool", "the name is kept");
            check(build(*plugin).getNbOutputs() == 1 && build(*plugin).getNbTactics() == 0, "one output, no tactics");
            check(build(*plugin).getWorkspaceSize(nullptr, 2, nullptr, 1) == 0, "no workspace");
            check(runtime(*plugin).setTactic(0) == 0 && runtime(*plugin).setTactic(3) != 0, "only the default tactic");
        }
        check(std::string(build(unpool).getTimingCacheID()) == build(copy).getTimingCacheID(), "the same timing cache ID");
        const Plugin other = make_unpool(library, 1 - rows, rows);
        check(std::string(build(unpool).getTimingCacheID()) != build(other).getTimingCacheID(), "another timing cache ID");
    }
    const Plugin pool = make_pool(library), copy(pool->clone());
    check(runtime(copy).getFieldsToSerialize()->nbFields == 0, "the pooling has no fields");
    check(build(copy).getNbOutputs() == 2, "two outputs");
    DynamicPluginTensorDesc in[1]{}, out[2]{};
    for (auto* t : {&in[0], &out[0], &out[1]}) t->desc = tensor(DataType::kHALF, TensorFormat::kHWC8, -1, 8, -1, -1);
    check(build(copy).configurePlugin(in, 1, out, 2) == 0, "configured with dynamic sizes");
    out[1].desc.dims.nbDims = 3;
    said(library);
    check(build(copy).configurePlugin(in, 1, out, 2) != 0, "three dimensions are refused");
    check_said(library, "tensor 2 has 3 dimensions");
}

bool has_device()
{
    void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver != nullptr) dlclose(driver);
    return driver != nullptr;
}

void check_run(Library& library)
{
    const auto f32 = DataType::kFLOAT, i8 = DataType::kINT8;
    const auto linear = TensorFormat::kLINEAR;
    const Plugin pool = make_pool(library), unpool = make_unpool(library, 0, 1);
    PluginTensorDesc x[1] = {tensor(f32, linear, 2, 3, 5, 7)};
    PluginTensorDesc y[2] = {tensor(f32, linear, 2, 3, 2, 3), tensor(i8, linear, 2, 3, 2, 3)};
    check(runtime(pool).onShapeChange(x, 1, y, 2) == 0, "the pooling's shapes");
    y[1].dims.d[3] = 4;
    check(runtime(pool).onShapeChange(x, 1, y, 2) != 0, "a code of another shape is refused");
    check_said(library, "value and code must be");
    y[1] = tensor(DataType::kHALF, linear, 2, 3, 2, 3);
    check(runtime(pool).onShapeChange(x, 1, y, 2) != 0, "an FP16 code is refused");
    check_said(library, "types and formats");
    PluginTensorDesc v[3] = {tensor(f32, linear, 2, 3, 2, 3), tensor(i8, linear, 2, 3, 2, 3),
                             tensor(f32, linear, 2, 3, 4, 7)};
    PluginTensorDesc o[1] = {tensor(f32, linear, 2, 3, 4, 7)};
    check(runtime(unpool).enqueue(v, o, nullptr, nullptr, nullptr, nullptr) != 0, "shapes come before enqueue");
    check_said(library, "enqueue before onShapeChange");
    check(runtime(unpool).onShapeChange(v, 3, o, 1) == 0, "the unpooling's shapes");
    v[2].dims.d[3] = 6;
    check(runtime(unpool).onShapeChange(v, 3, o, 1) != 0, "an addend of another shape is refused");
    check_said(library, "out and addend must be");

    // Nothing to do is no launch, so it works without a device; something to do fails there, and says so.
    y[0].dims.d[0] = y[1].dims.d[0] = x[0].dims.d[0] = 0;
    y[1].type = i8;
    const void* in[3] = {nullptr, nullptr, nullptr};
    void* out[2] = {nullptr, nullptr};
    check(runtime(pool).enqueue(x, y, in, out, nullptr, nullptr) == 0, "an empty batch");
    check(said(library).empty(), "an empty batch says nothing");
    if (has_device()) return;
    y[0].dims.d[0] = y[1].dims.d[0] = x[0].dims.d[0] = 2;
    check(runtime(pool).enqueue(x, y, in, out, nullptr, nullptr) != 0, "no device is an error");
    check_said(library, "launch failed: cudaError");
    auto* preprocess = reinterpret_cast<decltype(&edgeseg_preprocess)>(library.symbol("edgeseg_preprocess"));
    check(preprocess(nullptr, nullptr, nullptr, nullptr) == EDGESEG_BAD_ARGUMENT, "bad arguments are refused");
}

}  // namespace

int main(int count, char** arguments)
{
    if (count != 2) return std::fprintf(stderr, "usage: %s LIBRARY\n", arguments[0]), 2;
    Library library(arguments[1]);
    check_creators(library);
    check_bad_fields(library);
    check_shapes(library);
    check_types(library);
    check_formats(library);
    check_build_and_clone(library);
    check_run(library);
    std::printf("%d checks, %d failed\n", checks, failures);
    return failures == 0 ? 0 : 1;
}
