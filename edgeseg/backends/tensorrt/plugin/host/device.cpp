// A CUDA device for tests/gpu.cu where there is none: its memory is the processor's, its kernels are the bodies of src/ in
// a loop, and work is done when a call returns. Compiled beside CUDA's own headers; a fill that is off by one is
// AddressSanitizer's to see.
#include <cuda_runtime.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "launch.h"

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t memory = 4u << 20;  // so little that large tensors are left out: a processor would take minutes

struct EachItem {
    template <class Body, class Index>
    int operator()(const Body& body, Index items) const
    {
        for (Index i = 0; i < items; ++i) body(i);
        return 0;
    }
};

Clock::time_point& time_of(cudaEvent_t event) { return *reinterpret_cast<Clock::time_point*>(event); }

}  // namespace

namespace edgeseg {

int launch(const PoolCall& call, cudaStream_t) { return max_pool_code(call, EachItem{}); }
int launch(const UnpoolCall& call, cudaStream_t) { return max_unpool(call, EachItem{}); }

}  // namespace edgeseg

extern "C" {

cudaError_t cudaMalloc(void** out, std::size_t bytes)
{
    return posix_memalign(out, 256, bytes) == 0 ? cudaSuccess : cudaErrorMemoryAllocation;
}
cudaError_t cudaFree(void* at) { return std::free(at), cudaSuccess; }
cudaError_t cudaMemset(void* at, int value, std::size_t bytes) { return std::memset(at, value, bytes), cudaSuccess; }
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind)
{
    if (bytes != 0) std::memcpy(to, from, bytes);
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t)
{
    return cudaMemcpy(to, from, bytes, kind);
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) { return *free = *total = memory, cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* out, int)
{
    *out = cudaDeviceProp{};
    return std::snprintf(out->name, sizeof out->name, "the processor"), cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t* out)
{
    *out = reinterpret_cast<cudaEvent_t>(new Clock::time_point);
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete &time_of(event);
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t) { return time_of(event) = Clock::now(), cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* out, cudaEvent_t start, cudaEvent_t stop)
{
    *out = std::chrono::duration<float, std::milli>(time_of(stop) - time_of(start)).count();
    return cudaSuccess;
}
const char* cudaGetErrorName(cudaError_t) { return "cudaError"; }
const char* cudaGetErrorString(cudaError_t) { return "an error"; }

}  // extern "C"
