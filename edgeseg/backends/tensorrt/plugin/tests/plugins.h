// A stand-in for the parts of TensorRT that the plugins talk to: a logger and dimension expressions. Only headers are
// needed, so the plugins are driven where there is no TensorRT.
#pragma once

#include <NvInferRuntime.h>
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <memory>
#include <string>
#include <vector>

namespace testing {

using Creators = nvinfer1::IPluginCreatorInterface* const* (*)(int32_t&);
using SetLoggerFinder = void (*)(nvinfer1::ILoggerFinder*);

class Logger : public nvinfer1::ILogger {
public:
    void log(Severity, const char* text) noexcept override { lines.emplace_back(text); }
    std::vector<std::string> lines;
};

class LoggerFinder : public nvinfer1::ILoggerFinder {
public:
    virtual ~LoggerFinder() = default;
    nvinfer1::ILogger* findLogger() override { return &logger; }
    Logger logger;
};

// A dimension with a number; a constant, or one that is known at run time only.
class Dimension : public nvinfer1::IDimensionExpr, private nvinfer1::apiv::VDimensionExpr {
public:
    Dimension(int64_t number, bool constant) : number_(number), constant_(constant)
    {
        nvinfer1::IDimensionExpr::mImpl = this;
    }
    bool known() const { return constant_; }
    int64_t number() const { return number_; }

private:
    bool isConstant() const override { return constant_; }
    int64_t getConstantValue() const override
    {
        if (!constant_) std::abort();  // a plugin must not read what is not known when it is built
        return number_;
    }
    bool isSizeTensor() const override { return false; }

    int64_t number_;
    bool constant_;
};

class Expressions : public nvinfer1::IExprBuilder, private nvinfer1::apiv::VExprBuilder {
public:
    Expressions() { nvinfer1::IExprBuilder::mImpl = this; }
    const Dimension* dimension(int64_t number, bool constant) { return &dimensions_.emplace_back(number, constant); }
    static const Dimension& of(const nvinfer1::IDimensionExpr& e) { return static_cast<const Dimension&>(e); }

private:
    const nvinfer1::IDimensionExpr* constant(int64_t value) override { return dimension(value, true); }
    const nvinfer1::IDimensionExpr* operation(nvinfer1::DimensionOperation op, const nvinfer1::IDimensionExpr& first,
                                              const nvinfer1::IDimensionExpr& second) override
    {
        const Dimension &a = of(first), &b = of(second);
        return dimension(result(op, a.number(), b.number()), a.known() && b.known());
    }
    const nvinfer1::IDimensionExpr* declareSizeTensor(int32_t, const nvinfer1::IDimensionExpr&,
                                                      const nvinfer1::IDimensionExpr&) override
    {
        return nullptr;
    }
    static int64_t result(nvinfer1::DimensionOperation op, int64_t a, int64_t b)
    {
        switch (op) {
            case nvinfer1::DimensionOperation::kSUM: return a + b;
            case nvinfer1::DimensionOperation::kPROD: return a * b;
            case nvinfer1::DimensionOperation::kFLOOR_DIV: return a / b;
            default: break;
        }
        std::fprintf(stderr, "an operation the test does not know\n");
        std::abort();
    }
    std::deque<Dimension> dimensions_;
};

// The library, its creators, and a logger that it writes to.
class Library {
public:
    explicit Library(const char* path) : handle_(dlopen(path, RTLD_NOW | RTLD_LOCAL))
    {
        if (handle_ == nullptr) std::fprintf(stderr, "%s\n", dlerror()), std::exit(2);
        reinterpret_cast<SetLoggerFinder>(symbol("setLoggerFinder"))(&finder_);
        const auto* all = reinterpret_cast<Creators>(symbol("getCreators"))(count_);
        creators_.assign(all, all + count_);
    }
    void* symbol(const char* name)
    {
        void* found = dlsym(handle_, name);
        if (found == nullptr) std::fprintf(stderr, "no symbol %s\n", name), std::exit(2);
        return found;
    }
    nvinfer1::IPluginCreatorV3One& creator(size_t i) { return static_cast<nvinfer1::IPluginCreatorV3One&>(*creators_.at(i)); }
    size_t count() const { return creators_.size(); }
    std::vector<std::string>& log() { return finder_.logger.lines; }

private:
    void* handle_;
    LoggerFinder finder_;
    int32_t count_ = 0;
    std::vector<nvinfer1::IPluginCreatorInterface*> creators_;
};

using Plugin = std::unique_ptr<nvinfer1::IPluginV3>;

inline nvinfer1::IPluginV3OneCore& core(const Plugin& p)
{
    return *static_cast<nvinfer1::IPluginV3OneCore*>(p->getCapabilityInterface(nvinfer1::PluginCapabilityType::kCORE));
}
inline nvinfer1::IPluginV3OneBuild& build(const Plugin& p)
{
    return *static_cast<nvinfer1::IPluginV3OneBuild*>(p->getCapabilityInterface(nvinfer1::PluginCapabilityType::kBUILD));
}
inline nvinfer1::IPluginV3OneRuntime& runtime(const Plugin& p)
{
    return *static_cast<nvinfer1::IPluginV3OneRuntime*>(
        p->getCapabilityInterface(nvinfer1::PluginCapabilityType::kRUNTIME));
}

inline Plugin make_pool(Library& library)
{
    const nvinfer1::PluginFieldCollection none{0, nullptr};
    return Plugin(library.creator(0).createPlugin("pool", &none, nvinfer1::TensorRTPhase::kBUILD));
}

inline Plugin make_unpool(Library& library, int32_t extra_rows, int32_t extra_columns)
{
    const nvinfer1::PluginField fields[2] = {{"extra_rows", &extra_rows, nvinfer1::PluginFieldType::kINT32, 1},
                                             {"extra_columns", &extra_columns, nvinfer1::PluginFieldType::kINT32, 1}};
    const nvinfer1::PluginFieldCollection both{2, fields};
    return Plugin(library.creator(1).createPlugin("unpool", &both, nvinfer1::TensorRTPhase::kBUILD));
}

inline nvinfer1::PluginTensorDesc tensor(nvinfer1::DataType type, nvinfer1::TensorFormat format, int64_t n, int64_t c,
                                         int64_t h, int64_t w)
{
    nvinfer1::PluginTensorDesc out{};
    out.dims = {4, {n, c, h, w}};
    out.type = type;
    out.format = format;
    out.scale = -1.f;
    return out;
}

}  // namespace testing
