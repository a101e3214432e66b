// Lets one header serve several machines: the formula headers are compiled by nvcc, by g++ for the
// emulated device, and by g++ once per CPU instruction set, all within one process.
//
// Every translation unit is compiled with -DTILEWRIGHT_MACHINE=<name> (on_cuda, on_simt, on_avx2,
// on_avx512, on_baseline; on_host where nothing is said). Code in headers lives in
//
//   namespace tilewright::inline TILEWRIGHT_MACHINE { ... }
//
// so that the linker never merges an inline function built with AVX-512 into code that must run
// without it.
#pragma once

#ifndef TILEWRIGHT_MACHINE
#define TILEWRIGHT_MACHINE on_host
#endif

// TILEWRIGHT_HD: callable from host and device code; small enough to be inlined everywhere.
#ifdef __CUDACC__
#define TILEWRIGHT_HD __host__ __device__ __forceinline__
#else
#define TILEWRIGHT_HD inline __attribute__((always_inline))
#endif
