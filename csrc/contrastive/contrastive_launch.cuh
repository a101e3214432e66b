// Which kernel a call takes, and its grid and shared memory; included by the one file per type that
// instantiates them.
#pragma once
#include "tilewright/contrastive/contrastive_fma_kernel.cuh"
#include "tilewright/contrastive/contrastive_launch.h"
#include "tilewright/contrastive/contrastive_mma_kernel.cuh"
#include "tilewright/core/cuda/launch.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// What decides, until figures of a GPU do: two blocks on each multiprocessor of sm_80 (164 KB), no
// local memory, and then two groups per warp, which share what it reads of the other side.
struct ContrastiveShape {
  int columns;                      // rows are padded to
  int forward_groups, grad_groups;  // of 16 lines per warp
  int forward_step, grad_step;      // rows of the others per step
};
inline constexpr ContrastiveShape kContrastiveShapes[] = {
    {64, 2, 2, 64, 64},   // 32 KB
    {128, 2, 2, 64, 32},  // 64 and 49 KB
    {256, 1, 1, 32, 32},  // 64 KB; sums of two groups would take all registers
};

// Calls go(shape) with the row of the table as a type.
template <class Go>
auto with_contrastive_shape(int depth, const Go& go) {
  if (depth <= 64) return go([] { return kContrastiveShapes[0]; });
  if (depth <= 128) return go([] { return kContrastiveShapes[1]; });
  return go([] { return kContrastiveShapes[2]; });
}

template <class T>
ContrastiveGrid contrastive_grid(const ContrastiveParams<T>& p, int lines, int step) {
  return {ceil_div(p.line_count, lines), ceil_div(p.other_count, step)};
}

template <class T>
ContrastiveGrid contrastive_forward_grid(const ContrastiveParams<T>& p) {
  if (!contrastive_takes_mma<T>(p.depth)) {
    return contrastive_grid(p, kContrastiveFmaRows, kContrastiveFmaRows);
  }
  return with_contrastive_shape(p.depth, [&](auto shape) {
    return contrastive_grid(p, 16 * kAttentionWarps * shape().forward_groups, shape().forward_step);
  });
}
template <class T>
ContrastiveGrid contrastive_grad_grid(const ContrastiveParams<T>& p) {
  if (!contrastive_takes_mma<T>(p.depth)) {
    ContrastiveGrid grid = contrastive_grid(p, kContrastiveFmaRows, kContrastiveFmaRows);
    grid.blocks *= ceil_div(p.depth, kFmaColumns<accumulate_t<T>>);
    return grid;
  }
  return with_contrastive_shape(p.depth, [&](auto shape) {
    return contrastive_grid(p, 16 * kAttentionWarps * shape().grad_groups, shape().grad_step);
  });
}

template <class Parts>
LaunchConfig contrastive_config(int64_t blocks) {
  LaunchConfig config;
  config.grid = dim3(unsigned(blocks));
  config.block = kAttentionThreads;
  config.shared_bytes = shared_bytes<Parts>();
  config.large_shared = true;
  return config;
}

template <class T, bool kTf32>
void launch_forward_fma(const ContrastiveParams<T>& p) {
  launch<contrastive_forward_fma_kernel<T, kTf32>>(
      contrastive_config<FmaParts<T, kTf32>>(contrastive_forward_grid(p).blocks * p.splits), p,
      int(contrastive_forward_grid(p).blocks));
}
template <class T, bool kTf32>
void launch_grad_fma(const ContrastiveParams<T>& p) {
  launch<contrastive_grad_fma_kernel<T, kTf32>>(
      contrastive_config<ContrastiveFmaGradParts<T, kTf32>>(contrastive_grad_grid(p).blocks *
                                                            p.splits),
      p, int(ceil_div(p.line_count, kContrastiveFmaRows)));
}

// With TF32 on tensor cores: the 16-bit types always, float32 where it is allowed.
template <class T, class Go>
void with_products_of(const ContrastiveParams<T>& p, const Go& go) {
  if constexpr (sizeof(T) == 2) {
    go(std::true_type());
  } else if constexpr (std::is_same_v<T, float>) {
    p.tf32 ? go(std::true_type()) : go(std::false_type());
  } else {
    go(std::false_type());
  }
}

template <class T>
void launch_contrastive_forward(const ContrastiveParams<T>& p) {
  if constexpr (sizeof(T) == 2) {
    if (contrastive_takes_mma<T>(p.depth)) {
      return with_contrastive_shape(p.depth, [&](auto shape) {
        constexpr ContrastiveShape kShape = shape();
        constexpr int kColumns = kShape.columns, kGroups = kShape.forward_groups;
        constexpr int kStep = kShape.forward_step;
        const int tiles = int(contrastive_forward_grid(p).blocks);
        launch<contrastive_forward_kernel<T, kColumns, kGroups, kStep>>(
            contrastive_config<ContrastiveTile<T, kColumns, kGroups, kStep>>(int64_t(tiles) *
                                                                             p.splits),
            p, tiles);
      });
    }
  }
  with_products_of(p, [&](auto tf32) { launch_forward_fma<T, decltype(tf32)::value>(p); });
}

template <class T>
void launch_contrastive_grad(const ContrastiveParams<T>& p) {
  if constexpr (sizeof(T) == 2) {
    if (contrastive_takes_mma<T>(p.depth)) {
      return with_contrastive_shape(p.depth, [&](auto shape) {
        constexpr ContrastiveShape kShape = shape();
        constexpr int kColumns = kShape.columns, kGroups = kShape.grad_groups;
        constexpr int kStep = kShape.grad_step;
        const int tiles = int(contrastive_grad_grid(p).blocks);
        launch<contrastive_grad_kernel<T, kColumns, kGroups, kStep>>(
            contrastive_config<ContrastiveGradParts<T, kColumns, kGroups, kStep>>(int64_t(tiles) *
                                                                                  p.splits),
            p, tiles);
      });
    }
  }
  with_products_of(p, [&](auto tf32) { launch_grad_fma<T, decltype(tf32)::value>(p); });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
