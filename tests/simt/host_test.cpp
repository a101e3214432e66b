// The host side: registration over a CPU kernel without torch's warning, typed pointers, and the
// operators that tests ask.
#include "tilewright/core/cuda/host.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/add.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include "simt/test_support.h"

using namespace tilewright;

namespace tilewright::inline TILEWRIGHT_MACHINE {
__global__ void add_hundred_kernel(float* values, int64_t n) {
  for (int64_t i : grid_stride(n)) values[i] += 100;
}
}  // namespace tilewright::inline TILEWRIGHT_MACHINE

namespace {

at::Tensor add_one_cpu(const at::Tensor& input) { return input.add(1); }

at::Tensor add_hundred_cuda(const at::Tensor& input) {
  DeviceGuard guard(input);
  at::Tensor output = input.clone();
  const int64_t n = output.numel();
  launch<add_hundred_kernel>(linear_config(n), mutable_data<float>(output), n);
  return output;
}

struct CountWarnings : c10::WarningHandler {
  void process(const c10::Warning&) override { ++count; }
  int count = 0;
};

template <class Result, class... Arguments>
Result call(const char* name, const Arguments&... arguments) {
  return c10::Dispatcher::singleton()
      .findSchemaOrThrow(name, "")
      .typed<Result(Arguments...)>()
      .call(arguments...);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(tilewright, m) { m.def("_simt_test_add(Tensor input) -> Tensor"); }
TORCH_LIBRARY_IMPL(tilewright, CPU, m) { m.impl("_simt_test_add", &add_one_cpu); }

TEST(Host, RegistersOverTheCpuKernelInSilence) {
  const auto add = [](const at::Tensor& input) {
    return c10::Dispatcher::singleton()
        .findSchemaOrThrow("tilewright::_simt_test_add", "")
        .typed<at::Tensor(const at::Tensor&)>()
        .call(input);
  };
  const at::Tensor input = at::zeros({7});
  EXPECT_EQ(add(input).sum().item<float>(), 7.f);
  CountWarnings warnings;
  c10::WarningUtils::set_warning_handler(&warnings);
  {
    const runtime::DeviceImpl impl(
        [](torch::Library& m) { m.impl("_simt_test_add", &add_hundred_cuda); }, __FILE__, __LINE__);
    EXPECT_EQ(add(input).sum().item<float>(), 700.f);
    EXPECT_EQ(add(at::zeros({0})).numel(), 0);
  }
  EXPECT_EQ(add(input).sum().item<float>(), 7.f);
  c10::WarningUtils::set_warning_handler(nullptr);
  EXPECT_EQ(warnings.count, 0);
}

TEST(Host, DevicePointersAndDeterminism) {
  const at::Tensor half = at::ones({2}, at::kHalf), other = at::ones({2}, at::kBFloat16);
  const __half* values = const_data<c10::Half>(half);
  __nv_bfloat16* others = mutable_data<c10::BFloat16>(other);
  EXPECT_EQ(to_accumulate(values[1]), 1.f);
  EXPECT_EQ(to_accumulate(others[1]), 1.f);
  EXPECT_FALSE(deterministic());
}

TEST(Host, OperatorsForTests) {
  call<void>("tilewright_simt::reset");
  EXPECT_EQ(call<int64_t>("tilewright_simt::launch_count"), 0);
  float value = 0;
  launch<add_hundred_kernel>({.grid = 1, .block = 1}, &value, 1);
  EXPECT_EQ(call<int64_t>("tilewright_simt::launch_count"), 1);
  EXPECT_EQ(call<std::vector<std::string>>("tilewright_simt::launched_kernels"),
            std::vector<std::string>{"tilewright::add_hundred_kernel(float*, long)"});
  call<void>("tilewright_simt::set_order", int64_t(3));
  call<void>("tilewright_simt::set_order", int64_t(0));
}
