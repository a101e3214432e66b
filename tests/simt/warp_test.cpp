// Warp primitives against plain loops.
#include <bit>
#include <climits>
#include <cmath>
#include <cstring>

#include "simt/test_support.h"
#include "simt/warp_kernels.cuh"

using namespace tilewright;

namespace {

// CUDA C++ programming guide, "warp shuffle functions": a lane whose source lies outside of its
// segment of `width` lanes keeps its own value.
int source(int kind, int lane, int operand, int width) {
  const int segment = lane / width * width;
  switch (kind) {
    case 0: return segment + ((operand % width) + width) % width;
    case 1: return lane - operand < segment ? lane : lane - operand;
    case 2: return lane + operand >= segment + width ? lane : lane + operand;
    default: return (lane ^ operand) >= segment + width ? lane : lane ^ operand;
  }
}

template <class T, class Make>
void check_shuffles(const Make& make) {
  std::vector<T> values(32), results(4 * 32);
  for (int i = 0; i < 32; ++i) values[i] = make(i);
  for (int width : {32, 16, 8, 4, 2, 1}) {
    for (int operand : {0, 1, 2, 3, 5, 8, 16, 31}) {
      launch<shuffle_kernel<T>>({.grid = 1, .block = 32}, values.data(), results.data(), operand,
                                width);
      for (int kind = 0; kind < 4; ++kind) {
        for (int lane = 0; lane < 32; ++lane) {
          const T expected = make(source(kind, lane, operand, width));
          ASSERT_EQ(std::memcmp(&results[kind * 32 + lane], &expected, sizeof(T)), 0)
              << "kind " << kind << " lane " << lane << " operand " << operand << " width "
              << width;
        }
      }
    }
  }
}

std::vector<int> some_values() {
  std::vector<int> values(32);
  for (int i = 0; i < 32; ++i) values[i] = i * 7 % 5 - (i == 9 ? 20 : 0);
  return values;
}

}  // namespace

TEST(Warp, Shuffles) {
  in_every_order([] {
    check_shuffles<int>([](int i) { return 1000 + i; });
    check_shuffles<float>([](int i) { return i * 0.5f; });
  });
  check_shuffles<double>([](int i) { return i / 3.; });
  check_shuffles<long long>([](int i) { return (1ll << 40) + i; });
  check_shuffles<__half>([](int i) { return __float2half(i * 0.25f); });
  check_shuffles<__nv_bfloat16>([](int i) { return __float2bfloat16(i * 0.25f); });
}

TEST(Warp, ShuffleWidthIsAPowerOfTwo) {
  int values[32] = {}, results[128];
  EXPECT_SAYS(error_of([&] {
                launch<shuffle_kernel<int>>({.grid = 1, .block = 32}, values, results, 1, 12);
              }),
              "width 12");
}

TEST(Warp, VotesAndMatches) {
  const std::vector<int> values = some_values();
  for (unsigned mask : {0xffffffffu, 0x00ff00ffu, 0x80000001u}) {
    in_every_order([&] {
      std::vector<unsigned> results(6 * 32);
      launch<votes_kernel>({.grid = 1, .block = 32}, mask, values.data(), results.data());
      unsigned above = 0, any = 0, all = 1;
      for (int i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        above |= unsigned(values[i] > 2) << i;
        any |= values[i] > 5;
        all &= values[i] > -1;
      }
      for (int i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        unsigned same = 0;
        for (int k = 0; k < 32; ++k) same |= unsigned(values[k] == values[i]) << k;
        EXPECT_EQ(results[i], above);
        EXPECT_EQ(results[32 + i], any);
        EXPECT_EQ(results[64 + i], all);
        EXPECT_EQ(results[96 + i], same & mask);
        EXPECT_EQ(results[128 + i], same & mask);
        EXPECT_EQ(results[160 + i], 1u);
      }
    });
  }
}

TEST(Warp, Reductions) {
  const std::vector<int> values = some_values();
  for (unsigned mask : {0xffffffffu, 0x0ff00ff0u, 0x00000200u}) {
    in_every_order([&] {
      std::vector<int> results(9 * 32);
      launch<reduce_kernel>({.grid = 1, .block = 32}, mask, values.data(), results.data());
      int sum = 0, least = INT_MAX, most = INT_MIN;
      unsigned low = UINT_MAX, high = 0, common = UINT_MAX, either = 0, odd = 0;
      for (int i = 0; i < 32; ++i) {
        if (!(mask >> i & 1)) continue;
        const unsigned bits = unsigned(values[i]);
        sum += values[i], common &= bits, either |= bits, odd ^= bits;
        least = std::min(least, values[i]), most = std::max(most, values[i]);
        low = std::min(low, bits), high = std::max(high, bits);
      }
      const int expected[] = {sum,       least,       most,        sum,     int(low),
                              int(high), int(common), int(either), int(odd)};
      for (int k = 0; k < 9; ++k) {
        for (int i = 0; i < 32; ++i) {
          ASSERT_EQ(results[k * 32 + i], mask >> i & 1 ? expected[k] : 0) << "result " << k;
        }
      }
    });
  }
}

TEST(Reduce, BlocksAndGroups) {
  for (int threads : {32, 96, 1024}) {
    in_every_order([&] {
      std::vector<double> values(threads), results(4 * threads);
      double sum = 0;
      for (int i = 0; i < threads; ++i) sum += values[i] = i * 37 % 101 - 50;
      LaunchConfig config{.grid = 1, .block = dim3(unsigned(threads))};
      config.shared_bytes = kLanes * sizeof(double);
      launch<block_reduce_kernel<double>>(config, values.data(), results.data());
      for (int i = 0; i < threads; ++i) {
        ASSERT_EQ(results[i], sum);
        ASSERT_EQ(results[threads + i], *std::max_element(values.begin(), values.end()));
        ASSERT_EQ(results[2 * threads + i], *std::min_element(values.begin(), values.end()));
        double group = 0;
        for (int k = 0; k < 8; ++k) group += values[i / 8 * 8 + k];
        ASSERT_EQ(results[3 * threads + i], group);
      }
    });
  }
  std::vector<float> values(64, 1.f), results(4 * 64);
  values[40] = NAN;
  launch<block_reduce_kernel<float>>({.grid = 1, .block = 64, .shared_bytes = 128}, values.data(),
                                     results.data());
  for (int i = 0; i < 3 * 64; ++i) EXPECT_TRUE(std::isnan(results[i]));
}

TEST(Intrinsics, AgainstTheirDefinitions) {
  std::vector<int> values(32), results(12 * 32);
  std::vector<float> floats(8 * 32);
  for (int i = 0; i < 32; ++i) values[i] = int((1u << i) - 3u * i);
  launch<intrinsics_kernel>({.grid = 1, .block = 32}, values.data(), results.data(), floats.data());
  for (int i = 0; i < 32; ++i) {
    const int v = values[i];
    const uint64_t wide = uint64_t(int64_t(v));
    unsigned reversed = 0;
    for (int k = 0; k < 32; ++k) reversed |= (unsigned(v) >> k & 1) << (31 - k);
    const int expected[] = {std::popcount(unsigned(v)),
                            std::popcount(wide),
                            v ? std::countr_zero(unsigned(v)) + 1 : 0,
                            v ? std::countr_zero(wide) + 1 : 0,
                            std::countl_zero(unsigned(v)),
                            std::countl_zero(wide),
                            int(reversed),
                            int(uint64_t(unsigned(v)) * 77 >> 32),
                            int(int64_t(v) * 77 >> 32),
                            std::min(v, i),
                            std::max(v, i),
                            int(std::nearbyint(double(v * 0.5f)))};
    for (int k = 0; k < 12; ++k) EXPECT_EQ(results[32 * k + i], expected[k]) << k << ' ' << v;
    const float x = float(i + 1) / 8;
    const float some[] = {std::exp(x),
                          std::log(x),
                          1 / std::sqrt(x),
                          1 / x,
                          x * x + x,
                          std::exp2(x),
                          std::min(std::max(x - 1, 0.f), 1.f),
                          x};
    for (int k = 0; k < 8; ++k) EXPECT_FLOAT_EQ(floats[32 * k + i], some[k]) << k;
  }
}
