// Max-pooling to a value and a code, and unpooling by it, as two operators of OpenVINO's CPU: what takes standard
// operators four poolings, three comparisons and a broadcast is one pass over memory each.
//
// Tensors are int8 and channels-last, (N, H, W, C), as OpenVINO's INT8 convolutions have them. The code is the place of
// the maximum in its 2x2 window, 0 to 3 in row-major order, the first of equals. For float tensors the standard
// operators are as fast: OpenVINO computes an operator it does not know in FP32, whatever the rest runs in.

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/frontend/onnx/extension/op.hpp>
#include <openvino/op/op.hpp>
#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

// One binary for all x86-64: the loops are compiled for each level and chosen when the library is loaded.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define EDGESEG_EVERY_LEVEL __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define EDGESEG_EVERY_LEVEL
#endif

namespace edgeseg {
namespace {

using Value = std::int8_t;
using Code = std::int8_t;

// What is written never overlaps what is read: without __restrict none of this becomes vector code.
EDGESEG_EVERY_LEVEL void pool_row(const Value* __restrict upper, const Value* __restrict lower, Value* __restrict value,
                                  Code* __restrict code, const std::size_t width, const std::size_t depth)
{
    for (std::size_t x = 0; x < width; ++x) {
        const Value* __restrict a = upper + 2 * x * depth;
        const Value* __restrict b = a + depth;
        const Value* __restrict c = lower + 2 * x * depth;
        const Value* __restrict d = c + depth;
        Value* __restrict v = value + x * depth;
        Code* __restrict k = code + x * depth;
        for (std::size_t i = 0; i < depth; ++i) {
            const Value second = b[i], third = c[i], fourth = d[i];
            Value best = a[i];
            Code place = 0;
            place = second > best ? 1 : place;
            best = second > best ? second : best;
            place = third > best ? 2 : place;
            best = third > best ? third : best;
            place = fourth > best ? 3 : place;
            best = fourth > best ? fourth : best;
            v[i] = best;
            k[i] = place;
        }
    }
}

inline Value mask(const bool kept) { return static_cast<Value>(-static_cast<Value>(kept)); }  // all bits or none

EDGESEG_EVERY_LEVEL void unpool_row(const Value* __restrict value, const Code* __restrict code, Value* __restrict upper,
                                    Value* __restrict lower, const std::size_t width, const std::size_t depth)
{
    for (std::size_t x = 0; x < width; ++x) {
        const Value* __restrict v = value + x * depth;
        const Code* __restrict k = code + x * depth;
        Value* __restrict a = upper + 2 * x * depth;
        Value* __restrict b = a + depth;
        Value* __restrict c = lower + 2 * x * depth;
        Value* __restrict d = c + depth;
        for (std::size_t i = 0; i < depth; ++i) {
            a[i] = v[i] & mask(k[i] == 0);
            b[i] = v[i] & mask(k[i] == 1);
            c[i] = v[i] & mask(k[i] == 2);
            d[i] = v[i] & mask(k[i] == 3);
        }
    }
}

struct Planes {
    std::size_t batch, height, width, depth;
};

Planes planes(const ov::Shape& shape) { return {shape[0], shape[1], shape[2], shape[3]}; }

constexpr std::size_t rows_at_once = 4;  // enough work for a thread to be worth waking

template <class Row>
void for_rows(const std::size_t rows, const Row& row)
{
    tbb::parallel_for(tbb::blocked_range<std::size_t>(0, rows, rows_at_once), [&](const auto& range) {
        for (std::size_t y = range.begin(); y != range.end(); ++y) row(y);
    });
}

void pool(const ov::Tensor& x, ov::Tensor& value, ov::Tensor& code)
{
    const Planes from = planes(x.get_shape()), to = planes(value.get_shape());
    const Value* source = static_cast<const Value*>(x.data());
    Value* values = static_cast<Value*>(value.data());
    Code* codes = static_cast<Code*>(code.data());
    const std::size_t pitch = from.width * from.depth, out_pitch = to.width * to.depth;
    for_rows(to.batch * to.height, [=](const std::size_t y) {
        const Value* upper = source + (y / to.height * from.height + 2 * (y % to.height)) * pitch;
        pool_row(upper, upper + pitch, values + y * out_pitch, codes + y * out_pitch, to.width, to.depth);
    });
}

void unpool(const ov::Tensor& value, const ov::Tensor& code, ov::Tensor& out)
{
    const Planes from = planes(value.get_shape()), to = planes(out.get_shape());
    if (from.height == 0) {
        std::memset(out.data(), 0, out.get_byte_size());
        return;
    }
    const Value* values = static_cast<const Value*>(value.data());
    const Code* codes = static_cast<const Code*>(code.data());
    Value* target = static_cast<Value*>(out.data());
    const std::size_t pitch = to.width * to.depth, in_pitch = from.width * from.depth;
    const std::size_t written = 2 * in_pitch, below = (to.height - 2 * from.height) * pitch;
    for_rows(from.batch * from.height, [=](const std::size_t y) {
        Value* upper = target + (y / from.height * to.height + 2 * (y % from.height)) * pitch;
        Value* lower = upper + pitch;
        unpool_row(values + y * in_pitch, codes + y * in_pitch, upper, lower, from.width, from.depth);
        std::memset(upper + written, 0, pitch - written);
        std::memset(lower + written, 0, pitch - written);
        if ((y + 1) % from.height == 0) std::memset(lower + pitch, 0, below);
    });
}

ov::Dimension half(const ov::Dimension& size)
{
    return size.is_static() ? ov::Dimension(size.get_length() / 2) : ov::Dimension::dynamic();
}

}  // namespace

/// x (N, H, W, C) -> value and code, both (N, H / 2, W / 2, C); all int8.
class MaxPoolCode : public ov::op::Op {
public:
    OPENVINO_OP("EdgesegMaxPoolCodeNHWC", "edgeseg");

    MaxPoolCode() = default;
    explicit MaxPoolCode(const ov::OutputVector& inputs) : Op(inputs) { constructor_validate_and_infer_types(); }

    void validate_and_infer_types() override
    {
        NODE_VALIDATION_CHECK(this, get_input_element_type(0).compatible(ov::element::i8), "takes int8");
        ov::PartialShape shape = get_input_partial_shape(0);
        NODE_VALIDATION_CHECK(this, shape.rank().compatible(4), "takes (N, H, W, C)");
        if (shape.rank().is_static()) {
            for (const std::size_t axis : {1, 2}) shape[axis] = half(shape[axis]);
        }
        for (const std::size_t output : {0, 1}) set_output_type(output, ov::element::i8, shape);
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override
    {
        check_new_args_count(this, inputs);
        return std::make_shared<MaxPoolCode>(inputs);
    }

    bool visit_attributes(ov::AttributeVisitor&) override { return true; }
    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override
    {
        ov::Shape shape = inputs[0].get_shape();
        for (const std::size_t axis : {1, 2}) shape[axis] /= 2;
        for (auto& output : outputs) output.set_shape(shape);
        pool(inputs[0], outputs[0], outputs[1]);
        return true;
    }
};

/// value, code (N, h, w, C) -> (N, 2 h + extra_rows, 2 w + extra_columns, C), zero where no value is put; all int8.
class MaxUnpool : public ov::op::Op {
public:
    OPENVINO_OP("EdgesegMaxUnpoolNHWC", "edgeseg");

    MaxUnpool() = default;
    MaxUnpool(const ov::OutputVector& inputs, const std::int64_t rows, const std::int64_t columns)
        : Op(inputs), extra_rows(rows), extra_columns(columns)
    {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override
    {
        for (const std::size_t input : {0, 1})
            NODE_VALIDATION_CHECK(this, get_input_element_type(input).compatible(ov::element::i8), "takes int8");
        NODE_VALIDATION_CHECK(this, (extra_rows | extra_columns | 1) == 1, "one row and one column more at most");
        ov::PartialShape shape = get_input_partial_shape(0);
        NODE_VALIDATION_CHECK(this, shape.compatible(get_input_partial_shape(1)), "takes a code for every value");
        NODE_VALIDATION_CHECK(this, shape.rank().compatible(4), "takes (N, h, w, C)");
        if (shape.rank().is_static()) {
            shape[1] = shape[1] * 2 + extra_rows;
            shape[2] = shape[2] * 2 + extra_columns;
        }
        set_output_type(0, ov::element::i8, shape);
    }

    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override
    {
        check_new_args_count(this, inputs);
        return std::make_shared<MaxUnpool>(inputs, extra_rows, extra_columns);
    }

    bool visit_attributes(ov::AttributeVisitor& visitor) override
    {
        visitor.on_attribute("extra_rows", extra_rows);
        visitor.on_attribute("extra_columns", extra_columns);
        return true;
    }

    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override
    {
        ov::Shape shape = inputs[0].get_shape();
        shape[1] = 2 * shape[1] + static_cast<std::size_t>(extra_rows);
        shape[2] = 2 * shape[2] + static_cast<std::size_t>(extra_columns);
        outputs[0].set_shape(shape);
        unpool(inputs[0], inputs[1], outputs[0]);
        return true;
    }

private:
    std::int64_t extra_rows = 0, extra_columns = 0;
};

}  // namespace edgeseg

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({
    std::make_shared<ov::OpExtension<edgeseg::MaxPoolCode>>(),
    std::make_shared<ov::OpExtension<edgeseg::MaxUnpool>>(),
    std::make_shared<ov::frontend::onnx::OpExtension<edgeseg::MaxPoolCode>>("EdgesegMaxPoolCodeNHWC", "edgeseg"),
    std::make_shared<ov::frontend::onnx::OpExtension<edgeseg::MaxUnpool>>("EdgesegMaxUnpoolNHWC", "edgeseg"),
}));
