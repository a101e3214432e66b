// Tensor core instructions of sm_80: one warp multiplies small matrices that its lanes hold in
// registers. All 32 lanes call together.
//
// Who holds what, with g = lane / 4 and t = lane % 4 (PTX ISA, "matrix fragments"):
//
//   m16n8k16, 16-bit pairs   a[0] (g, 2t..)     a[1] (g + 8, 2t..)    row, columns
//                            a[2] (g, 2t + 8..) a[3] (g + 8, 2t + 8..)
//                            b[0] (2t.., g)     b[1] (2t + 8.., g)    rows, column
//   m16n8k8, tf32            a[0] (g, t)        a[1] (g + 8, t)
//                            a[2] (g, t + 4)    a[3] (g + 8, t + 4)
//                            b[0] (t, g)        b[1] (t + 4, g)
//   d of both                d[0] (g, 2t)       d[1] (g, 2t + 1)
//                            d[2] (g + 8, 2t)   d[3] (g + 8, 2t + 1)
//
// So a d fragment, packed to 16 bits, is an a fragment of the next product: no shuffle between.
#pragma once
#include <type_traits>

#include "tilewright/core/cuda/device.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Two values in one register, `low` in the low half, as the fragments hold them.
template <class T>
TILEWRIGHT_DEVICE uint32_t pack_pair(float low, float high) {
  static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>);
  uint32_t bits;
  if constexpr (std::is_same_v<T, __half>) {
    const __half2 pair = __floats2half2_rn(low, high);
    memcpy(&bits, &pair, sizeof(bits));
  } else {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    memcpy(&bits, &pair, sizeof(bits));
  }
  return bits;
}

#ifdef TILEWRIGHT_SIMT

template <class T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  const simt::Where& where = simt::Where::current()) {
  static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>);
  simt::mma_m16n8k16(std::is_same_v<T, __nv_bfloat16>, d, a, b, where);
}
inline void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                             const simt::Where& where = simt::Where::current()) {
  simt::mma_m16n8k8(d, a, b, where);
}
inline uint32_t to_tf32(float value) {
  const uint32_t bits = __float_as_uint(value);
  return (bits & 0x7f800000) == 0x7f800000 ? bits : (bits + 0x1000) & ~uint32_t(0x1fff);
}
template <int N>
void load_matrices(uint32_t (&registers)[N], const void* row,
                   const simt::Where& where = simt::Where::current()) {
  static_assert(N == 1 || N == 2 || N == 4);
  simt::load_matrix(registers, N, false, row, where);
}
template <int N>
void load_matrices_transposed(uint32_t (&registers)[N], const void* row,
                              const simt::Where& where = simt::Where::current()) {
  static_assert(N == 1 || N == 2 || N == 4);
  simt::load_matrix(registers, N, true, row, where);
}

#else

// d (16, 8) += a (16, 16) * b (16, 8), T __half or __nv_bfloat16, sums in fp32.
template <class T>
TILEWRIGHT_DEVICE void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  static_assert(std::is_same_v<T, __half> || std::is_same_v<T, __nv_bfloat16>);
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

// d (16, 8) += a (16, 8) * b (8, 8); a and b are fp32 bits rounded by to_tf32.
TILEWRIGHT_DEVICE void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4],
                                        const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
      "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Rounds to 10 bits of fraction, ties away from zero.
TILEWRIGHT_DEVICE uint32_t to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

// Loads N = 1, 2 or 4 matrices of 8 x 8 16-bit values from shared memory. Lanes 8i to 8i + 7 point
// at the rows of matrix i (16 aligned bytes each; the other lanes' pointers are ignored), and
// registers[i] gets its elements (g, 2t..).
template <int N>
TILEWRIGHT_DEVICE void load_matrices(uint32_t (&registers)[N], const void* row) {
  static_assert(N == 1 || N == 2 || N == 4);
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (N == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (N == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  }
}

// The same, but registers[i] gets the elements (2t.., g): the transposed matrix.
template <int N>
TILEWRIGHT_DEVICE void load_matrices_transposed(uint32_t (&registers)[N], const void* row) {
  static_assert(N == 1 || N == 2 || N == 4);
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (N == 1) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];"
                 : "=r"(registers[0])
                 : "r"(address)
                 : "memory");
  } else if constexpr (N == 2) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(registers[0]), "=r"(registers[1])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(address)
                 : "memory");
  }
}

#endif

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
