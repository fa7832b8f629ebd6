// The calls of unpooling.h on a CUDA stream. Both return 0, bad_argument, or the cudaError_t of the launch.
#pragma once

#include <cuda_runtime_api.h>

#include "unpooling.h"

namespace edgeseg {

int launch(const PoolCall& call, cudaStream_t stream);
int launch(const UnpoolCall& call, cudaStream_t stream);

}  // namespace edgeseg
