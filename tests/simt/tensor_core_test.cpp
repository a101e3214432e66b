// Tensor core wrappers against plain matrix products, with the fragment layouts as the PTX ISA
// writes them ("Matrix Fragments for mma.m16n8k16", "... m16n8k8", "ldmatrix").
#include <bit>
#include <cmath>
#include <random>

#include "simt/tensor_core_kernels.cuh"
#include "simt/test_support.h"

using namespace tilewright;

namespace {

struct Place {
  int row, column;
};

// groupID = %laneid >> 2, threadID_in_group = %laneid % 4. The PTX text numbers the 16-bit elements
// of a fragment: a0, a1 in the first register, a2, a3 in the second, ...
Place place_a16(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  const bool upper = (0 <= i && i < 2) || (4 <= i && i < 6);
  return {upper ? group : group + 8, thread * 2 + (i & 1) + (i < 4 ? 0 : 8)};
}
Place place_b16(int lane, int i) { return {(lane % 4) * 2 + (i & 1) + (i < 2 ? 0 : 8), lane >> 2}; }
Place place_a_tf32(int lane, int i) {
  return {i == 0 || i == 2 ? lane >> 2 : (lane >> 2) + 8, i < 2 ? lane % 4 : lane % 4 + 4};
}
Place place_b_tf32(int lane, int i) { return {i == 0 ? lane % 4 : lane % 4 + 4, lane >> 2}; }
Place place_d(int lane, int i) {
  return {i < 2 ? lane >> 2 : (lane >> 2) + 8, (lane % 4) * 2 + (i & 1)};
}

struct Matrices {
  int depth;
  std::vector<float> a, b, d;  // (16, depth), (depth, 8), (16, 8)
  explicit Matrices(int depth) : depth(depth), a(16 * depth), b(depth * 8), d(16 * 8) {
    std::mt19937 random(depth);
    // Small integers over 8: products and sums are exact in every order.
    for (auto* m : {&a, &b, &d}) {
      for (float& value : *m) value = (int(random() % 33) - 16) / 8.f;
    }
  }
  float product(Place p) const {
    float sum = d[p.row * 8 + p.column];
    for (int k = 0; k < depth; ++k) sum += a[p.row * depth + k] * b[k * 8 + p.column];
    return sum;
  }
};

template <class T>
void check_mma_16() {
  const Matrices m(16);
  std::vector<T> a(32 * 8), b(32 * 4);
  std::vector<float> d(32 * 4);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const Place p = place_a16(lane, i);
      a[lane * 8 + i] = from_accumulate<T>(m.a[p.row * 16 + p.column]);
    }
    for (int i = 0; i < 4; ++i) {
      const Place p = place_b16(lane, i);
      b[lane * 4 + i] = from_accumulate<T>(m.b[p.row * 8 + p.column]);
      const Place q = place_d(lane, i);
      d[lane * 4 + i] = m.d[q.row * 8 + q.column];
    }
  }
  launch<mma_16_kernel<T>>({.grid = 1, .block = 32}, reinterpret_cast<uint32_t*>(a.data()),
                           reinterpret_cast<uint32_t*>(b.data()), d.data());
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) ASSERT_EQ(d[lane * 4 + i], m.product(place_d(lane, i)));
  }
}

template <int N, bool kTransposed>
void check_load_matrices() {
  std::vector<uint32_t> registers(32 * N);
  const LaunchConfig config{.grid = 1, .block = 32, .shared_bytes = shared_bytes<MatrixParts>()};
  launch<load_matrices_kernel<N, kTransposed>>(config, registers.data(), 0);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < N; ++i) {
      // Thread t holds the elements 2 (t % 4) and one on of row t / 4.
      const int row = lane / 4, column = 2 * (lane % 4);
      const int low = kTransposed ? column * 8 + row : row * 8 + column;
      const int high = kTransposed ? (column + 1) * 8 + row : row * 8 + column + 1;
      ASSERT_EQ(registers[lane * N + i], uint32_t(i * 64 + low) | uint32_t(i * 64 + high) << 16);
    }
  }
  EXPECT_SAYS(
      error_of([&] { launch<load_matrices_kernel<N, kTransposed>>(config, registers.data(), 1); }),
      "16 aligned bytes of shared memory");
}

}  // namespace

TEST(TensorCore, Half) { in_every_order(check_mma_16<__half>); }
TEST(TensorCore, BFloat16) { in_every_order(check_mma_16<__nv_bfloat16>); }

TEST(TensorCore, Tf32) {
  const Matrices m(8);
  std::vector<float> a(32 * 4), b(32 * 2), d(32 * 4);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place p = place_a_tf32(lane, i), q = place_d(lane, i);
      // What lies below tf32's ten bits is not seen.
      a[lane * 4 + i] = m.a[p.row * 8 + p.column] * (1 + 0x1p-20f);
      d[lane * 4 + i] = m.d[q.row * 8 + q.column];
    }
    for (int i = 0; i < 2; ++i) {
      const Place p = place_b_tf32(lane, i);
      b[lane * 2 + i] = m.b[p.row * 8 + p.column];
    }
  }
  for (bool rounds : {false, true}) {
    std::vector<float> result = d;
    launch<mma_tf32_kernel>({.grid = 1, .block = 32}, a.data(), b.data(), result.data(), rounds);
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) ASSERT_EQ(result[lane * 4 + i], m.product(place_d(lane, i)));
    }
  }
}

TEST(TensorCore, RoundsToTf32WithTiesAway) {
  const float values[] = {1, 1 + 0x1p-10f, 1 + 0x1p-11f, 1 + 0x1p-12f, -1 - 0x1p-11f, INFINITY, 0};
  const float expected[] = {1, 1 + 0x1p-10f, 1 + 0x1p-10f, 1, -1 - 0x1p-10f, INFINITY, 0};
  uint32_t bits[7];
  launch<to_tf32_kernel>({.grid = 1, .block = 7}, values, bits);
  for (int i = 0; i < 7; ++i) EXPECT_EQ(std::bit_cast<float>(bits[i]), expected[i]) << i;
}

TEST(TensorCore, EveryHalfHasItsValue) {
  // The identity for b: d takes the first eight columns of a.
  std::vector<__half> a(32 * 8), b(32 * 4);
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const Place p = place_b16(lane, i);
      b[lane * 4 + i] = __float2half(p.row == p.column ? 1.f : 0.f);
    }
  }
  for (unsigned first = 0; first < 0x7c00; first += 128) {
    std::vector<float> d(32 * 4);
    const auto value = [&](Place p) {  // signs alternate; the other columns hold zeros
      const unsigned bits = first + unsigned(p.row * 8 + p.column);
      __half_raw raw;
      raw.x = uint16_t(p.column < 8 && bits < 0x7c00 ? bits | (bits & 1) << 15 : 0);
      return __half(raw);
    };
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 8; ++i) a[lane * 8 + i] = value(place_a16(lane, i));
    }
    launch<mma_16_kernel<__half>>({.grid = 1, .block = 32}, reinterpret_cast<uint32_t*>(a.data()),
                                  reinterpret_cast<uint32_t*>(b.data()), d.data());
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        ASSERT_EQ(d[lane * 4 + i], __half2float(value(place_d(lane, i))));
      }
    }
  }
}

TEST(TensorCore, LoadsMatrices) {
  in_every_order([] {
    check_load_matrices<1, false>();
    check_load_matrices<2, false>();
    check_load_matrices<4, false>();
    check_load_matrices<1, true>();
    check_load_matrices<2, true>();
    check_load_matrices<4, true>();
  });
}

TEST(TensorCore, PacksPairsLowFirst) {
  const float values[] = {1.f, -2.f, 0.5f, 3.f};
  uint32_t pairs[2];
  launch<pack_pair_kernel<__half>>({.grid = 1, .block = 2}, values, pairs);
  EXPECT_EQ(pairs[0], 0xc0003c00u);
  EXPECT_EQ(pairs[1], 0x42003800u);
  launch<pack_pair_kernel<__nv_bfloat16>>({.grid = 1, .block = 2}, values, pairs);
  EXPECT_EQ(pairs[0], 0xc0003f80u);
}

TEST(TensorCore, NeedsTheWholeWarp) {
  EXPECT_SAYS(error_of([] { launch<lonely_mma_kernel>({.grid = 1, .block = 32}); }),
              "needs all 32 lanes");
}
