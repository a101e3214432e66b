// Tensor core instructions on the emulated device, in the fragment layouts of the PTX ISA: g is a
// lane's group (lane / 4), t its place in the group (lane % 4).
#include "simt/checker.h"

namespace tilewright::simt {
namespace {

struct MmaValue {
  float* d;  // c0, c1: row g, columns 2t, 2t + 1; c2, c3: row g + 8
  const uint32_t* a;
  const uint32_t* b;
};

float from_bits(uint32_t bits) { return __uint_as_float(bits); }
float bfloat16_value(uint32_t bits) { return from_bits(bits << 16); }
float half_value(uint32_t bits) {
  // Moves exponent and fraction into place and rescales, which is exact for subnormals too.
  const uint32_t magnitude = bits & 0x7fff;
  const float value = from_bits(magnitude << 13) * 0x1p112f;
  const float special = from_bits(magnitude << 13 | 0x7f800000);
  const float result = magnitude >= 0x7c00 ? special : value;
  return bits & 0x8000 ? -result : result;
}
// The tensor core does not see the last 13 bits.
float tf32_value(uint32_t bits) { return from_bits(bits & ~uint32_t(0x1fff)); }

void require_warp(const CallSite& site, unsigned arrived) {
  if (arrived != 0xffffffff) engine->fail(to_string(site) + ": needs all 32 lanes of the warp");
}

template <int K>
void multiply(const float (&a)[16][K], const float (&b)[K][8], void* const* values) {
  float d[16][8];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const float* mine = static_cast<const MmaValue*>(values[lane])->d;
    for (int i = 0; i < 4; ++i) d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2] = mine[i];
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < K; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    float* mine = static_cast<const MmaValue*>(values[lane])->d;
    for (int i = 0; i < 4; ++i) mine[i] = d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

template <float (*Value)(uint32_t)>
void do_m16n8k16(const CallSite& site, void* const* values, unsigned arrived) {
  require_warp(site, arrived);
  float a[16][16], b[16][8];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& mine = *static_cast<const MmaValue*>(values[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int half = 0; half < 2; ++half) {
      for (int i = 0; i < 4; ++i) {  // rows g and g + 8, then the same 8 columns on
        a[g + i % 2 * 8][2 * t + i / 2 * 8 + half] = Value(mine.a[i] >> 16 * half & 0xffff);
      }
      for (int i = 0; i < 2; ++i) {
        b[2 * t + i * 8 + half][g] = Value(mine.b[i] >> 16 * half & 0xffff);
      }
    }
  }
  multiply(a, b, values);
}

void do_m16n8k8(const CallSite& site, void* const* values, unsigned arrived) {
  require_warp(site, arrived);
  float a[16][8], b[8][8];
  for (int lane = 0; lane < kWarpSize; ++lane) {
    const auto& mine = *static_cast<const MmaValue*>(values[lane]);
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) a[g + i % 2 * 8][t + i / 2 * 4] = tf32_value(mine.a[i]);
    for (int i = 0; i < 2; ++i) b[t + i * 4][g] = tf32_value(mine.b[i]);
  }
  multiply(a, b, values);
}

struct LoadMatrixValue {
  uint32_t* registers;
  int count;
  bool transposed;
  const char* row;
};

// Lanes 8i to 8i + 7 give the addresses of the eight rows (16 bytes each) of matrix i.
void do_load_matrix(const CallSite& site, void* const* values, unsigned arrived) {
  require_warp(site, arrived);
  const auto value = [&](int lane) -> const LoadMatrixValue& {
    return *static_cast<const LoadMatrixValue*>(values[lane]);
  };
  for (int matrix = 0; matrix < value(0).count; ++matrix) {
    uint16_t elements[8][8];
    for (int row = 0; row < 8; ++row) {
      const char* address = value(matrix * 8 + row).row;
      if (reinterpret_cast<uintptr_t>(address) % 16 != 0 || !engine->in_shared(address, 16)) {
        engine->fail(to_string(site) + ": row " + std::to_string(row) + " of matrix " +
                     std::to_string(matrix) + " is not 16 aligned bytes of shared memory");
      }
      std::memcpy(elements[row], address, 16);
    }
    for (int lane = 0; lane < kWarpSize; ++lane) {
      const int g = lane / 4, t = lane % 4;
      const bool transposed = value(lane).transposed;
      const uint32_t low = transposed ? elements[2 * t][g] : elements[g][2 * t];
      const uint32_t high = transposed ? elements[2 * t + 1][g] : elements[g][2 * t + 1];
      value(lane).registers[matrix] = low | high << 16;
    }
  }
}

}  // namespace

void mma_m16n8k16(bool bfloat16, float* d, const uint32_t* a, const uint32_t* b,
                  const Where& where) {
  MmaValue mine{d, a, b};
  engine->meet({"mma_m16n8k16", where}, 0xffffffff, &mine,
               bfloat16 ? do_m16n8k16<bfloat16_value> : do_m16n8k16<half_value>);
}

void mma_m16n8k8(float* d, const uint32_t* a, const uint32_t* b, const Where& where) {
  MmaValue mine{d, a, b};
  engine->meet({"mma_m16n8k8", where}, 0xffffffff, &mine, do_m16n8k8);
}

void load_matrix(uint32_t* registers, int count, bool transposed, const void* row,
                 const Where& where) {
  if (int(lane_index()) < 8 * count) {
    observe(row, 16, Access::kRead, __builtin_return_address(0));
  }
  LoadMatrixValue mine{registers, count, transposed, static_cast<const char*>(row)};
  engine->meet({"load_matrix", where}, 0xffffffff, &mine, do_load_matrix);
}

}  // namespace tilewright::simt
