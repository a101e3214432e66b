// What the host side of an operator's CUDA code (*_cuda.cu) needs of torch: the device guard, typed
// pointers, the deterministic switch and registration. The same file serves the emulated device,
// where tensors are CPU tensors and the kernels are registered over the CPU's.
//
//   at::Tensor scale_cuda(const at::Tensor& input) {
//     DeviceGuard guard(input);
//     ...
//     params.input = const_data<T>(input);
//     launch<scale_kernel<device_t<T>>>(linear_config(input.numel()), params);
//     return output;
//   }
//
//   TILEWRIGHT_DEVICE_IMPL(m) { m.impl("scale", &scale_cuda); }
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <memory>

#include "tilewright/core/cuda/launch.h"

namespace tilewright {

namespace runtime {
#ifdef TILEWRIGHT_SIMT
// Registers over the CPU kernels, and keeps torch's warning about that from the user.
class DeviceImpl {
 public:
  DeviceImpl(void (*registers)(torch::Library&), const char* file, uint32_t line);

 private:
  std::unique_ptr<torch::Library> library_;
};
// Tells checked launches that they may touch the tensor, while the guard lives.
void lend(const at::Tensor& tensor, const void* data, bool writable);
#endif
bool deterministic_algorithms();
bool tf32_products();
int multiprocessors();
int compute_capability();
}  // namespace runtime

inline namespace TILEWRIGHT_MACHINE {

// Makes the tensor's device the current one. Every launch needs it: a user's tensor may live on
// another GPU than the current.
class DeviceGuard {
 public:
  explicit DeviceGuard(const at::Tensor& tensor) : guard_(tensor.device()) {}

 private:
  c10::DeviceGuard guard_;
#ifdef TILEWRIGHT_SIMT
  simt::MemoryScope scope_;
#endif
};

// The type that device code has for torch's T: __half for c10::Half.
template <class T>
struct DeviceType {
  using type = T;
};
template <>
struct DeviceType<c10::Half> {
  using type = __half;
};
template <>
struct DeviceType<c10::BFloat16> {
  using type = __nv_bfloat16;
};
template <class T>
using device_t = typename DeviceType<T>::type;

// Pointers to a tensor's elements as device code sees them; T is torch's type. A launch may touch
// the tensors whose pointers stand in its arguments, and write to those of mutable_data().
template <class T>
const device_t<T>* const_data(const at::Tensor& tensor) {
  const T* data = tensor.const_data_ptr<T>();
#ifdef TILEWRIGHT_SIMT
  runtime::lend(tensor, data, false);
#endif
  return reinterpret_cast<const device_t<T>*>(data);
}
template <class T>
device_t<T>* mutable_data(const at::Tensor& tensor) {
  T* data = tensor.mutable_data_ptr<T>();
#ifdef TILEWRIGHT_SIMT
  runtime::lend(tensor, data, true);
#endif
  return reinterpret_cast<device_t<T>*>(data);
}

// Of a tensor that one direction of an operator writes and the other only reads, where both have
// one struct of parameters.
template <class T>
device_t<T>* data_of(const at::Tensor& tensor, bool written) {
  return written ? mutable_data<T>(tensor) : const_cast<device_t<T>*>(const_data<T>(tensor));
}

// torch.use_deterministic_algorithms(True)?
inline bool deterministic() { return runtime::deterministic_algorithms(); }

// torch.backends.cuda.matmul.allow_tf32 or its successors: may products of float32 round their
// factors to 10 bits?
inline bool tf32_allowed() { return runtime::tf32_products(); }

// Of the current device.
inline int multiprocessors() { return runtime::multiprocessors(); }
// 10 * major + minor: 80, 86, 90, ...
inline int compute_capability() { return runtime::compute_capability(); }

}  // namespace TILEWRIGHT_MACHINE
}  // namespace tilewright

// TILEWRIGHT_DEVICE_IMPL(m) { m.impl("roi_align", &roi_align_cuda); } at the bottom of a *_cuda.cu.
#ifdef TILEWRIGHT_SIMT
#define TILEWRIGHT_DEVICE_IMPL(m) TILEWRIGHT_DEVICE_IMPL_UNIQUE(m, __COUNTER__)
#define TILEWRIGHT_DEVICE_IMPL_UNIQUE(m, id) TILEWRIGHT_DEVICE_IMPL_NAMED(m, id)
#define TILEWRIGHT_DEVICE_IMPL_NAMED(m, id)                                           \
  static void tilewright_device_impl_##id(torch::Library&);                           \
  static const ::tilewright::runtime::DeviceImpl tilewright_device_registration_##id( \
      &tilewright_device_impl_##id, __FILE__, __LINE__);                              \
  static void tilewright_device_impl_##id(torch::Library& m)
#else
#define TILEWRIGHT_DEVICE_IMPL(m) TORCH_LIBRARY_IMPL(tilewright, CUDA, m)
#endif
