// Every kernel of the library: one loop over the bodies of unpooling.h and pictures.h.
#include <cuda_runtime.h>

#include "launch.h"
#include "pictures.h"

#define EDGESEG_EXPORT extern "C" __attribute__((visibility("default")))

namespace edgeseg {
namespace {

constexpr unsigned block_size = 256;
constexpr std::uint64_t max_blocks = 0x7fffffff;  // gridDim.x, CUDA programming guide, technical specifications

template <class Body, class Index>
__global__ void __launch_bounds__(block_size) each(const Body body, const Index items)
{
    const Index stride = static_cast<Index>(gridDim.x) * block_size;
    for (Index i = static_cast<Index>(blockIdx.x) * block_size + threadIdx.x; i < items; i += stride) body(i);
}

struct OnStream {
    cudaStream_t stream;

    template <class Body, class Index>
    int operator()(const Body& body, Index items) const
    {
        // 32-bit items are fewer than 2^31, so the last block's index and the stride's sum do not wrap.
        const std::uint64_t blocks = (static_cast<std::uint64_t>(items) + block_size - 1) / block_size;
        each<<<static_cast<unsigned>(blocks < max_blocks ? blocks : max_blocks), block_size, 0, stream>>>(body, items);
        const cudaError_t status = cudaPeekAtLastError();
        if (status != cudaSuccess) cudaGetLastError();  // it is reported here; the next call is not to find it
        return static_cast<int>(status);
    }
};

OnStream on(void* stream) { return OnStream{static_cast<cudaStream_t>(stream)}; }

}  // namespace

int launch(const PoolCall& call, cudaStream_t stream) { return max_pool_code(call, OnStream{stream}); }
int launch(const UnpoolCall& call, cudaStream_t stream) { return max_unpool(call, OnStream{stream}); }

}  // namespace edgeseg

EDGESEG_EXPORT int edgeseg_preprocess(const edgeseg_frame* frame, const edgeseg_input* input, void* out, void* stream)
{
    return edgeseg::preprocess(frame, input, out, edgeseg::on(stream));
}

EDGESEG_EXPORT int edgeseg_overlay_scores(const void* scores, int32_t is_half, int32_t classes, int32_t height,
                                          int32_t width, const edgeseg_overlay* overlay, void* stream)
{
    return edgeseg::overlay_scores(scores, is_half != 0, classes, height, width, overlay, edgeseg::on(stream));
}

EDGESEG_EXPORT int edgeseg_overlay_labels(const void* labels, int32_t height, int32_t width,
                                          const edgeseg_overlay* overlay, void* stream)
{
    return edgeseg::overlay_labels(labels, height, width, overlay, edgeseg::on(stream));
}
