// Barriers and warp meetings: what must pass in any order of threads, and the planted mistakes that
// the emulated device must name.
#include "simt/sync_kernels.cuh"
#include "simt/test_support.h"

using namespace tilewright;

TEST(Barrier, ReachedByHalfTheThreads) {
  const std::string error = error_of([] { launch<half_barrier_kernel>({.grid = 1, .block = 32}); });
  EXPECT_SAYS(error, "half_barrier_kernel");
  EXPECT_SAYS(error, "block (0, 0, 0)");
  EXPECT_SAYS(error, "16 of 32 threads wait in __syncthreads at sync_kernels.cuh:");
}

TEST(Barrier, AtDifferentCalls) {
  in_every_order([] {
    const std::string error =
        error_of([] { launch<two_barriers_kernel>({.grid = 1, .block = 64}); });
    EXPECT_SAYS(error, "two_barriers_kernel");
    EXPECT_SAYS(error, "different barriers: __syncthreads at sync_kernels.cuh:");
  });
}

TEST(Barrier, ExitedThreadsDoNotCount) {
  in_every_order([] {
    for (int phase = 0; phase < 3; ++phase) {
      int passed = 0;
      launch<early_exit_kernel>({.grid = 3, .block = 96}, &passed, phase);
      EXPECT_EQ(passed, 3 * 64 * 2);
    }
    for (int last : {0, 31, 32, 99}) {
      int passed = 0;
      launch<last_exit_kernel>({.grid = 2, .block = 100}, &passed, last);
      EXPECT_EQ(passed, 2 * 99);
    }
  });
}

TEST(Barrier, SeparatesWritesFromReads) {
  for (int threads : {1, 7, 32, 100, 1024}) {
    in_every_order([&] {
      std::vector<int> values(threads);
      LaunchConfig config{.grid = 1, .block = dim3(unsigned(threads))};
      config.shared_bytes = threads * sizeof(int);
      launch<rotate_kernel>(config, values.data(), 5);
      for (int i = 0; i < threads; ++i) ASSERT_EQ(values[i], (i + 5) % threads);
    });
  }
}

TEST(Barrier, Votes) {
  in_every_order([] {
    std::vector<int> results(100 * 5);
    launch<block_votes_kernel>({.grid = 1, .block = 100}, results.data());
    for (int i = 0; i < 100; ++i) {
      const std::vector<int> mine(results.begin() + i * 5, results.begin() + i * 5 + 5);
      ASSERT_EQ(mine, (std::vector<int>{34, 1, 0, 1, 0}));
    }
  });
}

TEST(Warp, NamedLanesNeverArrive) {
  const std::string error = error_of([] { launch<absent_lanes_kernel>({.grid = 1, .block = 32}); });
  EXPECT_SAYS(error, "8 of 32 threads wait in __syncwarp at sync_kernels.cuh:");
  EXPECT_SAYS(error, "mask 0x0000ffff, for lanes 0x0000ff00");
  EXPECT_SAYS(error, "24 of 32 threads wait in __syncthreads at sync_kernels.cuh:");
}

TEST(Warp, MaskLacksTheCaller) {
  const std::string error = error_of([] { launch<lacks_caller_kernel>({.grid = 1, .block = 32}); });
  EXPECT_SAYS(error, "mask 0x000000ff lacks the caller");
}

TEST(Warp, LanesAtDifferentCalls) {
  in_every_order([] {
    const std::string error =
        error_of([] { launch<two_warp_calls_kernel>({.grid = 1, .block = 32}); });
    EXPECT_SAYS(error, "different calls");
    EXPECT_SAYS(error, "__syncwarp at sync_kernels.cuh:");
    EXPECT_SAYS(error, "__shfl_sync at sync_kernels.cuh:");
  });
}

TEST(Warp, HalvesMayDiverge) {
  in_every_order([] {
    std::vector<int> values(32);
    launch<diverged_kernel>({.grid = 1, .block = 32}, values.data());
    for (int i = 0; i < 32; ++i) {
      EXPECT_EQ(values[i], i < 16 ? (i + 16) ^ 15 : (i - 16) ^ 3);
    }
  });
}

TEST(Warp, ExitedLanesDoNotCountAndHaveNoValue) {
  in_every_order([] {
    std::vector<int> values(24);
    launch<exited_lanes_kernel>({.grid = 1, .block = 32}, values.data());
    for (int i = 0; i < 24; ++i) EXPECT_EQ(values[i], i < 16 ? i + 8 : -1);
  });
}

TEST(Failure, AbandonsTheLaunchAndNothingElse) {
  for (int round = 0; round < 50; ++round) {
    const std::string error =
        error_of([] { launch<trap_kernel>({.grid = 64, .block = 128}, 40u); });
    EXPECT_SAYS(error, "trap_kernel(unsigned int), ");
    EXPECT_SAYS(error, "block (40, 0, 0), thread (7, 0, 0): __trap at sync_kernels.cuh:");
    launch<trap_kernel>({.grid = 64, .block = 128}, 64u);
  }
}
