// Launches: coordinates, limits, shared memory, order, what is counted, and failures of a kernel.
#include <algorithm>
#include <numeric>

#include "simt/launch_kernels.cuh"
#include "simt/simt_internal.h"
#include "simt/test_support.h"

using namespace tilewright;

namespace tilewright::inline TILEWRIGHT_MACHINE {
// Here and not in launch_kernels.cuh: nvcc refuses it.
__global__ void nested_kernel() { launch<nothing_kernel>({.grid = 1, .block = 1}); }
}  // namespace tilewright::inline TILEWRIGHT_MACHINE

TEST(Launch, EveryPlaceRunsOnce) {
  const dim3 grids[] = {dim3(1), dim3(7), dim3(3, 5, 2), dim3(1, 1, 9)};
  const dim3 blocks[] = {dim3(1), dim3(33), dim3(4, 5, 6), dim3(2, 1, 64)};
  for (dim3 grid : grids) {
    for (dim3 block : blocks) {
      in_every_order([&] {
        std::vector<int> counts(grid.x * grid.y * grid.z * block.x * block.y * block.z);
        int wrong = 0;
        launch<count_places_kernel>({.grid = grid, .block = block}, counts.data(), &wrong,
                                    uint3(grid), uint3(block));
        EXPECT_EQ(wrong, 0);
        EXPECT_TRUE(std::all_of(counts.begin(), counts.end(), [](int n) { return n == 1; }));
      });
    }
  }
}

TEST(Launch, LinearConfigCoversEveryElement) {
  for (int64_t n : {1, 255, 256, 257, 5000}) {
    std::vector<double> values(n, 1.);
    launch<add_kernel<double>>(linear_config(n), values.data(), n, 2.);
    EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](double v) { return v == 3; }));
    // Fewer threads than elements: each takes several.
    launch<add_kernel<double>>({.grid = 2, .block = 32}, values.data(), n, 1.);
    EXPECT_TRUE(std::all_of(values.begin(), values.end(), [](double v) { return v == 4; }));
  }
  EXPECT_EQ(linear_config(int64_t(1) << 45).grid.x, 0x7fffffffu);
}

TEST(Launch, EmptyGridLaunchesNothing) {
  simt::reset_counts();
  launch<nothing_kernel>(linear_config(0));
  launch<nothing_kernel>({.grid = dim3(4, 0), .block = 32});
  EXPECT_EQ(simt::launch_count(), 0);
}

TEST(Launch, CountsAndNamesKernels) {
  simt::reset_counts();
  EXPECT_TRUE(simt::launched_kernels().empty());
  std::vector<float> values(8, 3.f);
  launch<add_kernel<float>>(linear_config(8), values.data(), 8, 1);
  launch<add_kernel<float>>(linear_config(8), values.data(), 8, 1);
  alignas(16) float input[8] = {1, 2, 3, 4, 5, 6, 7, 8}, output[8];
  launch<scale_kernel<float, 4, true>>(linear_config(2), ScaleParams{input, output, 8, 0.5});
  launch<nothing_kernel>({.grid = 1, .block = 1});
  EXPECT_EQ(values[7], 5.f);
  EXPECT_EQ(output[7], 32.f);
  EXPECT_EQ(simt::launch_count(), 4);
  // As cuobjdump and c++filt print them, without the machine's namespace.
  EXPECT_EQ(
      simt::launched_kernels(),
      (std::vector<std::string>{
          "tilewright::nothing_kernel()", "void tilewright::add_kernel<float>(float*, long, float)",
          "void tilewright::scale_kernel<float, 4, true>(tilewright::ScaleParams)"}));
  simt::reset_counts();
  EXPECT_EQ(simt::launch_count(), 0);
}

TEST(Launch, LimitsOfSm80) {
  const auto says = [](LaunchConfig config, const std::string& part) {
    simt::reset_counts();
    EXPECT_SAYS(error_of([&] { launch<nothing_kernel>(config); }), part);
    EXPECT_EQ(simt::launch_count(), 0);
  };
  says({.grid = 1u << 31, .block = 1}, "nothing_kernel(): a grid has at most");
  says({.grid = dim3(1, 65536), .block = 1}, "got (1, 65536, 1)");
  says({.grid = dim3(1, 1, 65536), .block = 1}, "got (1, 1, 65536)");
  says({.grid = 1, .block = 1025}, "a block has at most 1024 threads");
  says({.grid = 1, .block = dim3(1, 1025)}, "got (1, 1025, 1)");
  says({.grid = 1, .block = dim3(1, 1, 65)}, "got (1, 1, 65)");
  says({.grid = 1, .block = dim3(32, 33)}, "got (32, 33, 1)");
  says({.grid = 1, .block = dim3(0)}, "got (0, 1, 1)");
  says({.grid = 1, .block = 1, .shared_bytes = 49153}, "take LaunchConfig::large_shared");
  says({.grid = 1, .block = 1, .shared_bytes = 166913, .large_shared = true}, "166912 bytes");
  launch<nothing_kernel>({.grid = 1, .block = 1024, .shared_bytes = 49152});
  launch<nothing_kernel>(
      {.grid = 1, .block = dim3(16, 1, 64), .shared_bytes = 166912, .large_shared = true});
  launch<nothing_kernel>({.grid = dim3(1, 65535), .block = 1});
}

TEST(Launch, ASeedPermutesBlocksAndThreads) {
  const auto order_of = [](int seed, int blocks, int threads) {
    simt::set_order(seed);
    int turn = 0;
    std::vector<int> order(blocks * threads, -1);
    launch<turn_kernel>({.grid = dim3(blocks), .block = dim3(threads)}, &turn, order.data());
    simt::set_order(0);
    return order;
  };
  std::vector<int> in_order(64);
  std::iota(in_order.begin(), in_order.end(), 0);
  EXPECT_EQ(order_of(0, 1, 64), in_order);
  EXPECT_NE(order_of(1, 1, 64), in_order);
  EXPECT_NE(order_of(1, 1, 64), order_of(2, 1, 64));
  EXPECT_EQ(order_of(1, 1, 64), order_of(1, 1, 64));
  EXPECT_TRUE(std::ranges::is_permutation(order_of(1, 1, 64), in_order));
  EXPECT_TRUE(std::ranges::is_permutation(order_of(5, 16, 4), in_order));
  const auto blocks = order_of(3, 5, 1);  // few enough to run on one OS thread
  EXPECT_NE(blocks, order_of(4, 5, 1));
}

TEST(SharedMemory, IsNanForEveryBlock) {
  for (int n : {1, 100, 4096}) {
    LaunchConfig config{.grid = 20, .block = 64, .shared_bytes = shared_bytes<TwoParts>(n)};
    int not_nan = 0;
    launch<fresh_shared_kernel>(config, n, &not_nan);
    EXPECT_EQ(not_nan, 0);
  }
}

TEST(SharedMemory, HostAndKernelAgreeAndGapsAreFree) {
  EXPECT_EQ(shared_bytes<TwoParts>(3), 16 + 16);
  EXPECT_EQ(shared_bytes<TwoParts>(8192), 48 * 1024);
  LaunchConfig config{.grid = 1, .block = 1, .shared_bytes = shared_bytes<TwoParts>(8192)};
  int64_t distance = 0;
  launch<part_places_kernel>(config, &distance, 8192);
  EXPECT_EQ(distance, 32 * 1024 + int64_t(simt::kSharedGap));
}

TEST(SharedMemory, TakingMoreThanTheLaunchGave) {
  int not_nan = 0;
  const std::string error = error_of([&] {
    launch<fresh_shared_kernel>({.grid = 1, .block = 64, .shared_bytes = 100}, 64, &not_nan);
  });
  EXPECT_SAYS(error, "takes 256 bytes of shared memory, the launch gave 100");
}

TEST(Failure, AKernelLaunchesAnother) {
  EXPECT_SAYS(error_of([] { launch<nested_kernel>({.grid = 1, .block = 1}); }),
              "a kernel cannot launch");
}

TEST(Failure, MisalignedPack) {
  alignas(16) float values[8] = {1, 2, 3, 4, 5};
  float sum = 0;
  launch<misaligned_kernel>({.grid = 1, .block = 1}, values, &sum);
  EXPECT_EQ(sum, 5.f);
  EXPECT_SAYS(
      error_of([&] { launch<misaligned_kernel>({.grid = 1, .block = 1}, values + 1, &sum); }),
      "16 bytes");
}

TEST(FailureDeathTest, AThreadThatRunsOverItsStackMeetsTheGuard) {
  int result = 1;
  launch<deep_kernel>({.grid = 1, .block = 1}, &result, 100);
  EXPECT_EQ(result, 0);
  EXPECT_DEATH(launch<deep_kernel>({.grid = 1, .block = 1}, &result, 100000), "");
}
