// Atomics across blocks on several OS threads, and asynchronous copies that land at their wait.
#include <cmath>
#include <numeric>

#include "simt/memory_kernels.cuh"
#include "simt/test_support.h"

using namespace tilewright;

namespace {

template <class T>
double sum_of(int blocks, int threads, int rounds) {
  T sum = from_accumulate<T>(0);
  launch<sum_kernel<T>>({.grid = dim3(blocks), .block = dim3(threads)}, &sum, rounds);
  return double(to_accumulate(sum));
}

template <class T>
void check_integer_atomics() {
  T results[7] = {T(1000), 0, 0, T(~T(0)), 0, 0, T(5000)};
  launch<integer_atomics_kernel<T>>({.grid = 50, .block = 20}, results);
  EXPECT_EQ(results[0], T(0));
  EXPECT_EQ(results[1], T(999));
  EXPECT_EQ(results[2], T(999 * 1000 / 2));
  if (sizeof(T) == 8 || T(-1) > T(0)) {
    EXPECT_EQ(results[3], T(0));
    EXPECT_EQ(results[4], T(~T(0)));
    EXPECT_EQ(results[5], T(0));  // of 0 to 999
  }
  EXPECT_LT(results[6], T(1000));
}

template <class T>
void check_compare_and_swap() {
  T counter = 0;
  launch<compare_and_swap_kernel<T>>({.grid = 500, .block = 64}, &counter);
  EXPECT_EQ(counter, T(32000));
}

}  // namespace

TEST(Atomics, SumsAcrossBlocks) {
  EXPECT_EQ(sum_of<float>(400, 100, 10), 400000);
  EXPECT_EQ(sum_of<double>(400, 100, 10), 400000);
  EXPECT_EQ(sum_of<__half>(8, 128, 2), 2048);       // the last integer before half skips some
  EXPECT_EQ(sum_of<__nv_bfloat16>(4, 32, 2), 256);  // likewise
  int64_t sum = 5;
  launch<sum_long_kernel>({.grid = 30, .block = 10}, &sum);
  EXPECT_EQ(sum, 5 - (int64_t(900) << 33));
}

TEST(Atomics, Integers) {
  check_integer_atomics<int>();
  check_integer_atomics<unsigned>();
  check_integer_atomics<unsigned long long>();
  long long results[2] = {0, 0};
  launch<long_minmax_kernel>({.grid = 50, .block = 20}, results);
  EXPECT_EQ(results[0], -100ll * (1ll << 33));
  EXPECT_EQ(results[1], 899ll << 33);
}

TEST(Atomics, CompareAndSwapAndExchange) {
  check_compare_and_swap<int>();
  check_compare_and_swap<unsigned>();
  check_compare_and_swap<unsigned short>();
  check_compare_and_swap<unsigned long long>();
  float slot = 0, sum = 0;
  int decreases = 0;
  launch<exchange_kernel>({.grid = 40, .block = 64}, &slot, &sum, &decreases);
  EXPECT_EQ(sum, slot);  // every value put in came out again, but for the last
  EXPECT_EQ(decreases, -40 * 64);
}

TEST(AsyncCopy, CopiesAndFillsWithZeros) {
  std::vector<float> output(256);
  alignas(16) float input[256];
  std::iota(input, input + 256, 1.f);
  const auto check = [&](int valid) {
    for (int i = 0; i < 256; ++i) ASSERT_EQ(output[i], i < valid ? input[i] : 0.f) << i;
  };
  in_every_order([&] {
    LaunchConfig config{.grid = 1, .block = 48, .shared_bytes = shared_bytes<CopyParts>(256)};
    launch<copy_kernel<4>>(config, input, output.data(), 256, 133);
    check(133);
    launch<copy_kernel<8>>(config, input, output.data(), 256, 130);
    check(130);
    launch<copy_kernel<16>>(config, input, output.data(), 256, 256);
    check(256);
  });
}

TEST(AsyncCopy, LandsAtItsWaitAndNotBefore) {
  const float input[4] = {1, 2, 3, 4};
  float seen[16];
  launch<copy_groups_kernel>({.grid = 1, .block = 1, .shared_bytes = 16}, input, seen);
  const int landed[] = {0, 1, 3, 4};
  for (int step = 0; step < 4; ++step) {
    for (int i = 0; i < 4; ++i) {
      const float value = seen[step * 4 + i];
      // In flight, the destination holds neither the old nor the new value.
      EXPECT_TRUE(i < landed[step] ? value == input[i] : std::isnan(value)) << step << ' ' << i;
    }
  }
  launch<uncommitted_copy_kernel>({.grid = 1, .block = 1, .shared_bytes = 16}, input, seen);
  EXPECT_TRUE(std::isnan(seen[0]));
}

TEST(AsyncCopy, Mistakes) {
  alignas(16) float values[8] = {};
  const LaunchConfig config{.grid = 1, .block = 1, .shared_bytes = shared_bytes<CopyParts>(8)};
  EXPECT_SAYS(error_of([&] { launch<misaligned_copy_kernel>(config, values); }),
              "copy_async at memory_kernels.cuh:");
  EXPECT_SAYS(error_of([&] { launch<backward_copy_kernel>(config, values); }),
              "from global to shared memory");
}
