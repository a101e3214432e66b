// The checks of the emulated device: each planted mistake is named, and its corrected twin passes,
// in any order of threads and blocks. This file is compiled as device code is.
#include "simt/checker.h"

#include <numeric>

#include "simt/checked_kernels.cuh"
#include "simt/test_support.h"

using namespace tilewright;

namespace {

// Checks are on, and what is lent is lent, while it lives.
class Checks {
 public:
  Checks() { simt::set_checks(true); }
  ~Checks() { simt::set_checks(false), simt::set_tracing(false); }

  template <class T>
  T* lend(std::vector<T>& values, const char* name, bool writable = true) {
    simt::lend({values.data(), values.size() * sizeof(T), sizeof(T), writable, name, nullptr});
    return values.data();
  }

 private:
  simt::MemoryScope scope_;
};

// In every order: `fixed` is silent, and `broken` says all of `parts`.
template <class Fixed, class Broken>
void check(const Fixed& fixed, const Broken& broken, const std::vector<std::string>& parts) {
  in_every_order([&] {
    EXPECT_NO_THROW(fixed());
    const std::string error = error_of(broken);
    for (const std::string& part : parts) EXPECT_SAYS(error, part);
  });
}

LaunchConfig block_of(int threads, size_t shared_bytes = 0) {
  return {.grid = 1, .block = dim3(unsigned(threads)), .shared_bytes = shared_bytes};
}

}  // namespace

TEST(Checks, LostUpdate) {
  Checks checks;
  std::vector<int> sums(4);
  int* const p = checks.lend(sums, "sums");
  check([&] { launch<lost_update_kernel<true>>({.grid = 4, .block = 64}, p, false); },
        [&] { launch<lost_update_kernel<false>>({.grid = 4, .block = 64}, p, false); },
        {"lost_update_kernel<false>", "checked_kernels.cuh:", " of sums, which thread (",
         "between them"});
  check([&] { launch<lost_update_kernel<true>>({.grid = 4, .block = 1}, p, true); },
        [&] { launch<lost_update_kernel<false>>({.grid = 4, .block = 1}, p, true); },
        {"byte 0 of sums, which thread (0, 0, 0) of block (", " in the same launch"});
}

TEST(Checks, MissingBarrier) {
  Checks checks;
  std::vector<int> values(96);
  int* const p = checks.lend(values, "values");
  const LaunchConfig config = block_of(96, shared_bytes<RowParts>(96));
  check([&] { launch<missing_barrier_kernel<true>>(config, p); },
        [&] { launch<missing_barrier_kernel<false>>(config, p); },
        {"of part 0 of shared memory, which thread (", "missing_barrier_kernel<false>"});
  check([&] { launch<missing_second_barrier_kernel<true>>(config, p, 2); },
        [&] { launch<missing_second_barrier_kernel<false>>(config, p, 2); },
        {"of part 0 of shared memory, which thread ("});
}

TEST(Checks, MissingSyncwarp) {
  Checks checks;
  std::vector<int> values(64);
  int* const p = checks.lend(values, "values");
  const LaunchConfig config = block_of(64, shared_bytes<RowParts>(64));
  check([&] { launch<missing_syncwarp_kernel<true>>(config, p); },
        [&] { launch<missing_syncwarp_kernel<false>>(config, p); },
        {"of part 0 of shared memory, which thread (", "with no __syncwarp() between them"});
  const LaunchConfig warp = block_of(32, shared_bytes<RowParts>(32));
  check([&] { launch<half_warps_kernel<true>>(warp, p); },
        [&] { launch<half_warps_kernel<false>>(warp, p); }, {"with no __syncwarp() between them"});
}

TEST(Checks, AcrossBlocks) {
  Checks checks;
  std::vector<int> values(8), result(1);
  int* const p = checks.lend(values, "values");
  int* const r = checks.lend(result, "result");
  check([&] { launch<across_blocks_kernel<true>>({.grid = 8, .block = 32}, p, r); },
        [&] { launch<across_blocks_kernel<false>>({.grid = 8, .block = 32}, p, r); },
        {"byte 28 of values, which thread (0, 0, 0) of block (", "in the same launch"});
  EXPECT_SAYS(error_of([&] { launch<same_value_kernel>({.grid = 2, .block = 1}, p); }),
              "byte 0 of values");
  EXPECT_SAYS(error_of([&] { launch<same_value_kernel>({.grid = 1, .block = 2}, p); }),
              "byte 0 of values");
  EXPECT_NO_THROW(launch<same_value_kernel>({.grid = 1, .block = 1}, p));
}

TEST(Checks, OverrunIntoTheNextPartOfSharedMemory) {
  Checks checks;
  for (int n : {16, 17}) {
    std::vector<float> values(n);
    float* const p = checks.lend(values, "values");
    const LaunchConfig config = block_of(32, shared_bytes<PairParts>(n));
    check([&] { launch<part_overrun_kernel>(config, p, n, 0); },
          [&] { launch<part_overrun_kernel>(config, p, n, 1); },
          {"writes 4 bytes 0 bytes past the end of part 0 of shared memory", "out of bounds"});
    EXPECT_FLOAT_EQ(values[n - 1], 3);
  }
}

TEST(Checks, AsynchronousCopyReadBeforeItsWait) {
  Checks checks;
  std::vector<float> input(64 * 4 + 4), output(64);
  const size_t misaligned = reinterpret_cast<uintptr_t>(input.data()) % 16 / 4;
  const float* const in = checks.lend(input, "input", false) + (4 - misaligned) % 4;
  float* const out = checks.lend(output, "output");
  const LaunchConfig config = block_of(64, shared_bytes<PairParts>(64 * 4));
  check([&] { launch<early_copy_kernel<true>>(config, in, out); },
        [&] { launch<early_copy_kernel<false>>(config, in, out); },
        {"reads byte ", "of part 0 of shared memory between an asynchronous copy into it and the",
         "checked_kernels.cuh:"});
  check([&] { launch<copy_without_barrier_kernel<true>>(config, in, out); },
        [&] { launch<copy_without_barrier_kernel<false>>(config, in, out); },
        {"of part 0 of shared memory, which thread ("});
}

TEST(Checks, OutOfBounds) {
  Checks checks;
  std::vector<float> input(64), output(64);
  const float* const in = checks.lend(input, "input", false);
  float* const out = checks.lend(output, "output");
  const auto shift = [&](int read, int write) {
    return [=] { launch<shift_kernel>(block_of(64), in, out, read, write); };
  };
  check(shift(0, 0), shift(1, 0),
        {"thread (63, 0, 0): checked_kernels.cuh:",
         "reads 4 bytes 0 bytes past the end of input (256 bytes): out of bounds"});
  check(shift(0, 0), shift(-1, 0), {"reads 4 bytes 4 bytes before the start of input"});
  check(shift(0, 0), shift(0, 2), {"writes 4 bytes ", " past the end of output"});
  check(shift(0, 0), shift(1 << 28, 0), {"reads 4 bytes at 0x", "in no memory of the launch"});
  check([&] { launch<pack_kernel>(block_of(16), in, out, 0); },
        [&] { launch<pack_kernel>(block_of(16), in, out, 4); },
        {"thread (15, 0, 0)", "reads 16 bytes 0 bytes past the end of input"});
  const auto from = reinterpret_cast<const char*>(in);
  const auto to = reinterpret_cast<char*>(out);
  check([&] { launch<copy_bytes_kernel>(block_of(2), from, to, size_t(256)); },
        [&] { launch<copy_bytes_kernel>(block_of(2), from, to, size_t(257)); },
        {"reads 257 bytes at byte 0 of input, across its end"});
  check([&] { launch<fill_bytes_kernel>(block_of(2), to, size_t(256)); },
        [&] { launch<fill_bytes_kernel>(block_of(2), to, size_t(257)); },
        {"writes 257 bytes at byte 0 of output, across its end"});
  EXPECT_SAYS(error_of([&] { launch<shift_kernel>(block_of(1), nullptr, out, 0, 0); }),
              "in no memory of the launch");
}

TEST(Checks, WriteToAnInput) {
  Checks checks;
  std::vector<float> input(64), scratch(64), output(64);
  const float* const in = checks.lend(input, "input", false);
  const float* const writable = checks.lend(scratch, "scratch");
  float* const out = checks.lend(output, "output");
  check([&] { launch<write_input_kernel>(block_of(64), writable, out); },
        [&] { launch<write_input_kernel>(block_of(64), in, out); },
        {"writes 4 bytes at byte ", " of input, which the launch may only read"});
  EXPECT_EQ(input[0], 0.f);  // the write was not carried out
}

TEST(Checks, OnlyMemoryOfTheLaunch) {
  Checks checks;
  std::vector<float> input(64), other(64), output(64);
  const float* const in = checks.lend(input, "input", false);
  const float* const elsewhere = checks.lend(other, "other");
  float* const out = checks.lend(output, "output");
  const auto read = [&](const float* from) { launch<shift_kernel>(block_of(64), from, out, 0, 0); };
  EXPECT_NO_THROW(read(elsewhere));
  const int away = int(elsewhere - in);
  EXPECT_SAYS(error_of([&] { launch<shift_kernel>(block_of(1), in, out, away, 0); }), "other");
  std::vector<float> gone(64);
  {
    const simt::MemoryScope scope;
    checks.lend(gone, "gone");
    EXPECT_NO_THROW(read(gone.data()));
  }
  EXPECT_SAYS(error_of([&] { read(gone.data()); }), "out of bounds");
  bool alive = true;
  simt::lend({gone.data(), 256, 4, false, "gone", [&] { return alive; }});
  EXPECT_NO_THROW(read(gone.data()));
  alive = false;
  EXPECT_SAYS(error_of([&] { read(gone.data()); }), "out of bounds");
}

TEST(Checks, CleanKernels) {
  Checks checks;
  std::vector<float> input(256, 1.f), output(64);
  const float* const in = checks.lend(input, "input", false);
  float* const out = checks.lend(output, "output");
  in_every_order([&] {
    launch<block_sum_kernel>(block_of(256, 128), in, out);
    EXPECT_EQ(output[0], 768.f);
    launch<constants_kernel>(block_of(64), out, 3);
  });
}
