// The few calls into the CUDA runtime and c10/cuda, compiled once instead of into every operator.
#include <ATen/Context.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>

namespace tilewright::runtime {

namespace {
int attribute(cudaDeviceAttr which) {
  int device = 0, value = 0;
  C10_CUDA_CHECK(cudaGetDevice(&device));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&value, which, device));
  return value;
}
}  // namespace

void launch_on_gpu(const void* kernel, dim3 grid, dim3 block, size_t shared_bytes,
                   bool large_shared, void** arguments) {
  constexpr size_t kSharedBytes = 48 * 1024;  // what every GPU grants a block unasked
  if (shared_bytes > kSharedBytes) {
    TORCH_CHECK(large_shared, "a kernel needs ", shared_bytes,
                " bytes of shared memory; more than 48 KB take LaunchConfig::large_shared");
    const int most = attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
    TORCH_CHECK(shared_bytes <= size_t(most), "a kernel needs ", shared_bytes,
                " bytes of shared memory in a block, but this GPU grants ", most,
                ": use a smaller last dimension or another dtype here");
    C10_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                        int(shared_bytes)));
  }
  C10_CUDA_CHECK(cudaLaunchKernel(kernel, grid, block, arguments, shared_bytes,
                                  c10::cuda::getCurrentCUDAStream()));
  C10_CUDA_KERNEL_LAUNCH_CHECK();
}

int multiprocessors() { return attribute(cudaDevAttrMultiProcessorCount); }

int compute_capability() {
  return 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
         attribute(cudaDevAttrComputeCapabilityMinor);
}

bool tf32_products() {
  return at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL) ==
         at::Float32Precision::TF32;
}
bool deterministic_algorithms() { return at::globalContext().deterministicAlgorithms(); }

}  // namespace tilewright::runtime
