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

// `tiles`: of lines; a block for each of the grid's and each split.
template <auto Kernel, class Parts, class T>
void launch_tiles(const ContrastiveParams<T>& p, const ContrastiveGrid& grid, int64_t tiles) {
  launch<Kernel>(
      parts_config<Parts>(grid.blocks * p.splits, kAttentionThreads, /*large_shared=*/true), p,
      int(tiles));
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
  const ContrastiveGrid grid = contrastive_forward_grid(p);
  if constexpr (sizeof(T) == 2) {
    if (contrastive_takes_mma<T>(p.depth)) {
      return with_contrastive_shape(p.depth, [&](auto shape) {
        constexpr ContrastiveShape kShape = shape();
        constexpr int kColumns = kShape.columns, kGroups = kShape.forward_groups;
        constexpr int kStep = kShape.forward_step;
        launch_tiles<contrastive_forward_kernel<T, kColumns, kGroups, kStep>,
                     ContrastiveTile<T, kColumns, kGroups, kStep>>(p, grid, grid.blocks);
      });
    }
  }
  with_products_of(p, [&](auto tf32) {
    constexpr bool kTf32 = decltype(tf32)::value;
    launch_tiles<contrastive_forward_fma_kernel<T, kTf32>, FmaParts<T, kTf32>>(p, grid,
                                                                               grid.blocks);
  });
}

template <class T>
void launch_contrastive_grad(const ContrastiveParams<T>& p) {
  const ContrastiveGrid grid = contrastive_grad_grid(p);
  if constexpr (sizeof(T) == 2) {
    if (contrastive_takes_mma<T>(p.depth)) {
      return with_contrastive_shape(p.depth, [&](auto shape) {
        constexpr ContrastiveShape kShape = shape();
        constexpr int kColumns = kShape.columns, kGroups = kShape.grad_groups;
        constexpr int kStep = kShape.grad_step;
        launch_tiles<contrastive_grad_kernel<T, kColumns, kGroups, kStep>,
                     ContrastiveGradParts<T, kColumns, kGroups, kStep>>(p, grid, grid.blocks);
      });
    }
  }
  with_products_of(p, [&](auto tf32) {
    constexpr bool kTf32 = decltype(tf32)::value;
    launch_tiles<contrastive_grad_fma_kernel<T, kTf32>, ContrastiveFmaGradParts<T, kTf32>>(
        p, grid, ceil_div(p.line_count, kContrastiveFmaRows));
  });
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
