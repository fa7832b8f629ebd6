// The two TensorRT plugins, and what a library of plugins exports. Only TensorRT's headers are needed: nothing here
// calls a function of libnvinfer.
//
//   EdgesegMaxPoolCode: x -> value, code           no fields
//   EdgesegMaxUnpool:   value, code[, addend] -> out    fields extra_rows, extra_columns: INT32, 0 or 1
#include <NvInferRuntime.h>

#include <array>
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <new>

#include "edgeseg_plugin.h"
#include "launch.h"

#define EDGESEG_EXPORT extern "C" __attribute__((visibility("default")))

namespace {

using nvinfer1::DataType;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;
using Severity = nvinfer1::ILogger::Severity;

constexpr const char* pool_name = "EdgesegMaxPoolCode";
constexpr const char* unpool_name = "EdgesegMaxUnpool";
constexpr const char* plugin_version = "1";

std::atomic<nvinfer1::ILoggerFinder*> logger_finder{nullptr};

// To TensorRT's logger, or to standard error where nobody gave one.
__attribute__((format(printf, 1, 2))) void log_error(const char* format, ...) noexcept
{
    char text[512];
    std::va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    nvinfer1::ILoggerFinder* finder = logger_finder.load();
    nvinfer1::ILogger* logger = finder != nullptr ? finder->findLogger() : nullptr;
    if (logger != nullptr) {
        logger->log(Severity::kERROR, text);
    } else {
        std::fprintf(stderr, "%s\n", text);
    }
}

// ---- formats ----

bool type_of(DataType type, edgeseg::Type& out)
{
    switch (type) {
        case DataType::kFLOAT: out = edgeseg::Type::fp32; return true;
        case DataType::kHALF: out = edgeseg::Type::fp16; return true;
        case DataType::kINT8: out = edgeseg::Type::int8; return true;
        default: return false;
    }
}

bool format_of(TensorFormat format, edgeseg::Format& out)
{
    switch (format) {
        case TensorFormat::kLINEAR: out = edgeseg::Format::linear; return true;
        case TensorFormat::kHWC8: out = edgeseg::Format::hwc8; return true;
        case TensorFormat::kHWC16: out = edgeseg::Format::hwc16; return true;
        case TensorFormat::kCHW32: out = edgeseg::Format::chw32; return true;
        default: return false;
    }
}

// Whether this TensorRT has INT8 in HWC16: its documentation says FP16 only in 10.3, and INT8 too in 10.16.
constexpr bool has_int8_hwc16 = NV_TENSORRT_VERSION >= 101600;

// What the value (its type and format) and the code (its format) may be. Values in LINEAR have their codes in LINEAR.
// FP16 in HWC8, the layout of tensor-core convolutions, has codes in CHW32, which every TensorRT has for INT8, or in
// HWC16: TensorRT has no INT8 HWC8, both keep a thread's eight channels together, and in both a warp's codes fill whole
// memory sectors. INT8 values have codes in their own format, CHW32 or HWC16.
bool is_pair(DataType type, TensorFormat value, TensorFormat code)
{
    edgeseg::Type t;
    edgeseg::Format v, c;
    if (!type_of(type, t) || !format_of(value, v) || !format_of(code, c)) return false;
    return edgeseg::supported(t, v, c) && (c != edgeseg::Format::hwc16 || has_int8_hwc16);
}

bool is_value(const PluginTensorDesc& value)
{
    constexpr std::array<TensorFormat, 3> codes{TensorFormat::kLINEAR, TensorFormat::kCHW32, TensorFormat::kHWC16};
    for (const TensorFormat code : codes) {
        if (is_pair(value.type, value.format, code)) return true;
    }
    return false;
}

bool is_code(const PluginTensorDesc& code, const PluginTensorDesc& value)
{
    return code.type == DataType::kINT8 && is_pair(value.type, value.format, code.format);
}

bool is_same(const PluginTensorDesc& a, const PluginTensorDesc& b) { return a.type == b.type && a.format == b.format; }

// (N, C, H, W); false where the tensor has another rank.
bool shape_of(const PluginTensorDesc& tensor, edgeseg::Shape& shape)
{
    if (tensor.dims.nbDims != 4) return false;
    shape = {tensor.dims.d[0], tensor.dims.d[1], tensor.dims.d[2], tensor.dims.d[3]};
    return true;
}

bool has_shape(const PluginTensorDesc& tensor, const edgeseg::Shape& expected)
{
    edgeseg::Shape s{};
    return shape_of(tensor, s) && s.n == expected.n && s.c == expected.c && s.h == expected.h && s.w == expected.w;
}

// ---- what both plugins have in common ----

class Plugin : public nvinfer1::IPluginV3,
               public nvinfer1::IPluginV3OneCore,
               public nvinfer1::IPluginV3OneBuild,
               public nvinfer1::IPluginV3OneRuntime {
public:
    nvinfer1::IPluginCapability* getCapabilityInterface(nvinfer1::PluginCapabilityType type) noexcept override
    {
        switch (type) {
            case nvinfer1::PluginCapabilityType::kCORE: return static_cast<nvinfer1::IPluginV3OneCore*>(this);
            case nvinfer1::PluginCapabilityType::kBUILD: return static_cast<nvinfer1::IPluginV3OneBuild*>(this);
            case nvinfer1::PluginCapabilityType::kRUNTIME: return static_cast<nvinfer1::IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    const char* getPluginName() const noexcept override { return name_; }
    const char* getPluginVersion() const noexcept override { return plugin_version; }
    const char* getPluginNamespace() const noexcept override { return ""; }

    int32_t configurePlugin(const DynamicPluginTensorDesc* in, int32_t inputs, const DynamicPluginTensorDesc* out,
                            int32_t outputs) noexcept override
    {
        if (!takes(inputs, outputs)) return 1;
        for (int32_t i = 0; i < inputs + outputs; ++i) {
            const PluginTensorDesc& tensor = i < inputs ? in[i].desc : out[i - inputs].desc;
            if (tensor.dims.nbDims == 4) continue;
            log_error("%s: tensor %d has %d dimensions, expected 4: (N, C, H, W)", name_, i, tensor.dims.nbDims);
            return 1;
        }
        return 0;
    }

    size_t getWorkspaceSize(const DynamicPluginTensorDesc*, int32_t, const DynamicPluginTensorDesc*,
                            int32_t) const noexcept override
    {
        return 0;
    }

    // One way a format: no tactics but the default one, 0.
    int32_t getNbTactics() noexcept override { return 0; }
    int32_t getValidTactics(int32_t*, int32_t) noexcept override { return 0; }
    int32_t setTactic(int32_t tactic) noexcept override
    {
        if (tactic == 0) return 0;
        log_error("%s: asked for tactic %d, expected 0", name_, tactic);
        return 1;
    }

    nvinfer1::IPluginV3* attachToContext(nvinfer1::IPluginResourceContext*) noexcept override { return clone(); }

protected:
    explicit Plugin(const char* name) : name_(name) {}

    virtual bool takes(int32_t inputs, int32_t outputs) const noexcept = 0;

    // The result of a launch, logged where it is an error.
    int32_t said(int status) const noexcept
    {
        if (status == 0) return 0;
        if (status == edgeseg::bad_argument) {
            log_error("%s: no kernel for these types, formats and addresses", name_);
        } else {
            const auto error = static_cast<cudaError_t>(status);
            log_error("%s: launch failed: %s: %s", name_, cudaGetErrorName(error), cudaGetErrorString(error));
        }
        return 1;
    }

    int32_t refused(const char* what) const noexcept
    {
        log_error("%s: %s", name_, what);
        return 1;
    }

    const char* name_;
};

// ---- EdgesegMaxPoolCode ----

class MaxPoolCode final : public Plugin {
public:
    MaxPoolCode() : Plugin(pool_name) {}

    nvinfer1::IPluginV3* clone() noexcept override
    {
        auto* copy = new (std::nothrow) MaxPoolCode(*this);
        if (copy == nullptr) log_error("%s: no memory for a clone", name_);
        return copy;
    }

    int32_t getNbOutputs() const noexcept override { return 2; }

    int32_t getOutputDataTypes(DataType* out, int32_t outputs, const DataType* in, int32_t inputs) const noexcept override
    {
        edgeseg::Type type;
        if (!takes(inputs, outputs)) return 1;
        if (!type_of(in[0], type)) return refused("x must be FP32, FP16 or INT8");
        out[0] = in[0];
        out[1] = DataType::kINT8;
        return 0;
    }

    int32_t getOutputShapes(const nvinfer1::DimsExprs* in, int32_t inputs, const nvinfer1::DimsExprs*, int32_t,
                            nvinfer1::DimsExprs* out, int32_t outputs, nvinfer1::IExprBuilder& builder) noexcept override
    {
        if (!takes(inputs, outputs)) return 1;
        if (in[0].nbDims != 4) return refused("x must have 4 dimensions: (N, C, H, W)");
        const auto* two = builder.constant(2);
        if (two == nullptr) return refused("the expression builder gave no constant");
        for (int32_t o = 0; o < 2; ++o) {
            out[o].nbDims = 4;
            for (int32_t i = 0; i < 4; ++i) {
                const auto* size = in[0].d[i];
                out[o].d[i] = i < 2 ? size : builder.operation(nvinfer1::DimensionOperation::kFLOOR_DIV, *size, *two);
            }
        }
        return 0;
    }

    bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t inputs,
                                   int32_t outputs) noexcept override
    {
        if (inputs != 1 || outputs != 2) return false;
        switch (position) {
            case 0: return is_value(tensors[0].desc);
            case 1: return is_same(tensors[1].desc, tensors[0].desc);
            case 2: return is_code(tensors[2].desc, tensors[0].desc);
            default: return false;
        }
    }

    // Nothing but shapes and formats decides what is timed.
    const char* getTimingCacheID() noexcept override { return plugin_version; }
    const char* getMetadataString() noexcept override { return ""; }

    int32_t onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                          int32_t outputs) noexcept override
    {
        edgeseg::PoolCall call{};
        return takes(inputs, outputs) ? prepared(call, in, out) : 1;
    }

    int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out, const void* const* inputs,
                    void* const* outputs, void*, cudaStream_t stream) noexcept override
    {
        edgeseg::PoolCall call{};
        if (prepared(call, in, out) != 0) return 1;
        call.x = inputs[0];
        call.value = outputs[0];
        call.code = outputs[1];
        return said(edgeseg::launch(call, stream));
    }

    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override { return &no_fields_; }

private:
    bool takes(int32_t inputs, int32_t outputs) const noexcept override
    {
        if (inputs == 1 && outputs == 2) return true;
        log_error("%s: got %d inputs and %d outputs, expected x -> value, code", name_, inputs, outputs);
        return false;
    }

    int32_t prepared(edgeseg::PoolCall& call, const PluginTensorDesc* in, const PluginTensorDesc* out) const noexcept
    {
        const bool fit = type_of(in[0].type, call.type) && format_of(in[0].format, call.format) &&
                         format_of(out[1].format, call.code_format) && is_same(out[0], in[0]) && is_code(out[1], in[0]);
        if (!fit) return refused("got a combination of types and formats it does not support");
        if (!shape_of(in[0], call.in)) return refused("x must have 4 dimensions: (N, C, H, W)");
        const edgeseg::Shape expected{call.in.n, call.in.c, call.in.h / 2, call.in.w / 2};
        if (!has_shape(out[0], expected) || !has_shape(out[1], expected)) {
            return refused("value and code must be (N, C, H / 2, W / 2)");
        }
        return 0;
    }

    nvinfer1::PluginFieldCollection no_fields_{0, nullptr};
};

// ---- EdgesegMaxUnpool ----

class MaxUnpool final : public Plugin {
public:
    MaxUnpool(int32_t extra_rows, int32_t extra_columns) : Plugin(unpool_name), extra_{extra_rows, extra_columns}
    {
        std::snprintf(text_, sizeof text_, "version=%s extra_rows=%d extra_columns=%d", plugin_version, extra_rows,
                      extra_columns);
    }

    nvinfer1::IPluginV3* clone() noexcept override
    {
        auto* copy = new (std::nothrow) MaxUnpool(extra_[0], extra_[1]);  // fields_ point into the object: not copied
        if (copy == nullptr) {
            log_error("%s: no memory for a clone", name_);
            return nullptr;
        }
        copy->inputs_ = inputs_;
        return copy;
    }

    int32_t getNbOutputs() const noexcept override { return 1; }

    int32_t getOutputDataTypes(DataType* out, int32_t outputs, const DataType* in, int32_t inputs) const noexcept override
    {
        edgeseg::Type type;
        if (!takes(inputs, outputs)) return 1;
        if (!type_of(in[0], type)) return refused("value must be FP32, FP16 or INT8");
        if (in[1] != DataType::kINT8) return refused("code must be INT8");
        if (inputs == 3 && in[0] == DataType::kINT8) {
            return refused("an INT8 addend is not supported, its scale is another: add after DequantizeLinear");
        }
        if (inputs == 3 && in[2] != in[0]) return refused("addend must have the type of value");
        out[0] = in[0];
        return 0;
    }

    int32_t getOutputShapes(const nvinfer1::DimsExprs* in, int32_t inputs, const nvinfer1::DimsExprs*, int32_t,
                            nvinfer1::DimsExprs* out, int32_t outputs, nvinfer1::IExprBuilder& builder) noexcept override
    {
        if (!takes(inputs, outputs)) return 1;
        for (int32_t i = 0; i < inputs; ++i) {
            if (in[i].nbDims != 4) return refused("every input must have 4 dimensions: (N, C, H, W)");
        }
        const auto* two = builder.constant(2);
        if (two == nullptr) return refused("the expression builder gave no constant");
        out[0] = in[0];
        for (int32_t i = 0; i < 2; ++i) {
            const auto* size = builder.operation(nvinfer1::DimensionOperation::kPROD, *in[0].d[2 + i], *two);
            const auto* extra = builder.constant(extra_[static_cast<size_t>(i)]);
            if (size == nullptr || extra == nullptr) return refused("the expression builder gave no size");
            out[0].d[2 + i] = builder.operation(nvinfer1::DimensionOperation::kSUM, *size, *extra);
        }
        return 0;
    }

    bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc* tensors, int32_t inputs,
                                   int32_t outputs) noexcept override
    {
        if ((inputs != 2 && inputs != 3) || outputs != 1 || position < 0 || position > inputs) return false;
        if (position == 0) {
            return is_value(tensors[0].desc) && (inputs == 2 || tensors[0].desc.type != DataType::kINT8);
        }
        if (position == 1) return is_code(tensors[1].desc, tensors[0].desc);
        return is_same(tensors[position].desc, tensors[0].desc);
    }

    const char* getTimingCacheID() noexcept override { return text_; }
    const char* getMetadataString() noexcept override { return text_; }

    int32_t onShapeChange(const PluginTensorDesc* in, int32_t inputs, const PluginTensorDesc* out,
                          int32_t outputs) noexcept override
    {
        edgeseg::UnpoolCall call{};
        if (!takes(inputs, outputs)) return 1;
        inputs_ = inputs;
        return prepared(call, in, out);
    }

    int32_t enqueue(const PluginTensorDesc* in, const PluginTensorDesc* out, const void* const* inputs,
                    void* const* outputs, void*, cudaStream_t stream) noexcept override
    {
        edgeseg::UnpoolCall call{};
        if (inputs_ == 0) return refused("enqueue before onShapeChange");
        if (prepared(call, in, out) != 0) return 1;
        call.value = inputs[0];
        call.code = inputs[1];
        call.addend = inputs_ == 3 ? inputs[2] : nullptr;
        call.out = outputs[0];
        return said(edgeseg::launch(call, stream));
    }

    const nvinfer1::PluginFieldCollection* getFieldsToSerialize() noexcept override
    {
        fields_[0] = {"extra_rows", &extra_[0], nvinfer1::PluginFieldType::kINT32, 1};
        fields_[1] = {"extra_columns", &extra_[1], nvinfer1::PluginFieldType::kINT32, 1};
        collection_ = {2, fields_.data()};
        return &collection_;
    }

private:
    bool takes(int32_t inputs, int32_t outputs) const noexcept override
    {
        if ((inputs == 2 || inputs == 3) && outputs == 1) return true;
        log_error("%s: got %d inputs and %d outputs, expected value, code and maybe addend -> out", name_, inputs,
                  outputs);
        return false;
    }

    int32_t prepared(edgeseg::UnpoolCall& call, const PluginTensorDesc* in, const PluginTensorDesc* out) const noexcept
    {
        bool fit = type_of(in[0].type, call.type) && format_of(in[0].format, call.format) &&
                   format_of(in[1].format, call.code_format) && is_code(in[1], in[0]) && is_same(out[0], in[0]);
        if (inputs_ == 3) fit = fit && is_same(in[2], in[0]) && call.type != edgeseg::Type::int8;
        if (!fit) return refused("got a combination of types and formats it does not support");
        if (!shape_of(in[0], call.windows)) return refused("value must have 4 dimensions: (N, C, h, w)");
        call.extra_rows = extra_[0];
        call.extra_columns = extra_[1];
        const edgeseg::Shape& s = call.windows;
        const edgeseg::Shape expected{s.n, s.c, 2 * s.h + extra_[0], 2 * s.w + extra_[1]};
        if (!has_shape(in[1], s)) return refused("code must have the shape of value");
        if (!has_shape(out[0], expected) || (inputs_ == 3 && !has_shape(in[2], expected))) {
            return refused("out and addend must be (N, C, 2h + extra_rows, 2w + extra_columns)");
        }
        return 0;
    }

    std::array<int32_t, 2> extra_;
    int32_t inputs_ = 0;  // enqueue is not told; onShapeChange is, and comes before it
    char text_[64];
    std::array<nvinfer1::PluginField, 2> fields_{};
    nvinfer1::PluginFieldCollection collection_{};
};

// ---- creators ----

class MaxPoolCodeCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection*,
                                      nvinfer1::TensorRTPhase) noexcept override
    {
        auto* plugin = new (std::nothrow) MaxPoolCode;
        if (plugin == nullptr) log_error("%s: no memory", pool_name);
        return plugin;
    }
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &fields_; }
    const char* getPluginName() const noexcept override { return pool_name; }
    const char* getPluginVersion() const noexcept override { return plugin_version; }
    const char* getPluginNamespace() const noexcept override { return ""; }

private:
    nvinfer1::PluginFieldCollection fields_{0, nullptr};
};

// 0 or 1 of the field `name`, or -1 after saying what is wrong.
int32_t flag(const nvinfer1::PluginFieldCollection* fields, const char* name) noexcept
{
    for (int32_t i = 0; fields != nullptr && i < fields->nbFields; ++i) {
        const nvinfer1::PluginField& field = fields->fields[i];
        if (field.name == nullptr || std::strcmp(field.name, name) != 0) continue;
        if (field.type != nvinfer1::PluginFieldType::kINT32 || field.length != 1 || field.data == nullptr) {
            log_error("%s: field %s: got type %d of length %d, expected one INT32", unpool_name, name,
                      static_cast<int>(field.type), field.length);
            return -1;
        }
        int32_t number = 0;
        std::memcpy(&number, field.data, sizeof number);
        if (number == 0 || number == 1) return number;
        log_error("%s: field %s: got %d, expected 0 or 1", unpool_name, name, number);
        return -1;
    }
    log_error("%s: field %s is missing, expected 0 or 1", unpool_name, name);
    return -1;
}

class MaxUnpoolCreator final : public nvinfer1::IPluginCreatorV3One {
public:
    nvinfer1::IPluginV3* createPlugin(const char*, const nvinfer1::PluginFieldCollection* fields,
                                      nvinfer1::TensorRTPhase) noexcept override
    {
        const int32_t extra_rows = flag(fields, "extra_rows"), extra_columns = flag(fields, "extra_columns");
        if (extra_rows < 0 || extra_columns < 0) return nullptr;
        auto* plugin = new (std::nothrow) MaxUnpool(extra_rows, extra_columns);
        if (plugin == nullptr) log_error("%s: no memory", unpool_name);
        return plugin;
    }
    const nvinfer1::PluginFieldCollection* getFieldNames() noexcept override { return &collection_; }
    const char* getPluginName() const noexcept override { return unpool_name; }
    const char* getPluginVersion() const noexcept override { return plugin_version; }
    const char* getPluginNamespace() const noexcept override { return ""; }

private:
    std::array<nvinfer1::PluginField, 2> fields_{
        nvinfer1::PluginField{"extra_rows", nullptr, nvinfer1::PluginFieldType::kINT32, 1},
        nvinfer1::PluginField{"extra_columns", nullptr, nvinfer1::PluginFieldType::kINT32, 1}};
    nvinfer1::PluginFieldCollection collection_{2, fields_.data()};
};

}  // namespace

// ---- what TensorRT looks up when it loads a library of plugins ----

EDGESEG_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { logger_finder.store(finder); }

EDGESEG_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count)
{
    static MaxPoolCodeCreator pool;
    static MaxUnpoolCreator unpool;
    static nvinfer1::IPluginCreatorInterface* const creators[] = {&pool, &unpool};
    count = 2;
    return creators;
}

EDGESEG_EXPORT int edgeseg_plugin_version(void) { return EDGESEG_PLUGIN_ABI; }

EDGESEG_EXPORT const char* edgeseg_plugin_build(void)
{
    static const std::array<char, 80> text = [] {
        std::array<char, 80> out{};
        std::snprintf(out.data(), out.size(), "abi=%d tensorrt=%d.%d.%d cuda=%d.%d", EDGESEG_PLUGIN_ABI,
                      NV_TENSORRT_MAJOR, NV_TENSORRT_MINOR, NV_TENSORRT_PATCH, CUDART_VERSION / 1000,
                      CUDART_VERSION % 1000 / 10);
        return out;
    }();
    return text.data();
}
