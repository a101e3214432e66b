// Neighbourhoods by rows: schema, checks, and indexing in tensor operations.
#include "tilewright/models/gather_patches.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/index.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/models/holds_data.h"

namespace tilewright {
namespace {

constexpr int64_t kSide = 3, kTaps = kSide * kSide;

// (N, 9, C) of the cells (N,) of one map, counted in their image, of images (N,).
at::Tensor patches_of_map(const at::Tensor& map, const at::Tensor& images,
                          const at::Tensor& cells) {
  const int64_t height = map.size(2), width = map.size(3);
  const auto tap = at::arange(kTaps, cells.options());
  const auto y = (cells.floor_divide(width).unsqueeze(1) + tap.floor_divide(kSide)) - 1;  // (N, 9)
  const auto x = (cells.remainder(width).unsqueeze(1) + tap.remainder(kSide)) - 1;        // (N, 9)
  const auto outside =
      (y < 0).logical_or(y >= height).logical_or(x < 0).logical_or(x >= width).unsqueeze(2);
  const auto near_y = y.clamp(0, height - 1), near_x = x.clamp(0, width - 1);
  if (map.suggest_memory_format() != at::MemoryFormat::ChannelsLast) {
    return at::index(map, {images.unsqueeze(1), std::nullopt, near_y, near_x})
        .masked_fill(outside, 0);
  }
  const auto row = (images.unsqueeze(1) * height + near_y) * width + near_x;  // (N, 9)
  return map.permute({0, 2, 3, 1})
      .reshape({-1, map.size(1)})  // a view
      .index_select(0, row.flatten())
      .view({-1, kTaps, map.size(1)})
      .masked_fill(outside, 0);
}

void check_inputs(at::TensorList features, const at::Tensor& cells) {
  constexpr auto kOp = "gather_patches";
  TILEWRIGHT_CHECK(kOp, !features.empty(),
                   "features must hold one map per level, got an empty list");
  int64_t count = 0;
  for (size_t i = 0; i < features.size(); ++i) {
    const auto& map = features[i];
    TILEWRIGHT_CHECK(
        kOp,
        map.dim() == 4 && map.size(0) == features[0].size(0) && map.size(1) == features[0].size(1),
        "features[", i, "] must have shape (B, C, H, W) with B and C of features[0] ",
        shape_of(features[0]), ", got ", shape_of(map));
    TILEWRIGHT_CHECK(kOp, map.scalar_type() == features[0].scalar_type(), "features[", i,
                     "] must have the dtype of features[0], ", features[0].scalar_type(), ", got ",
                     map.scalar_type());
    check_same_device(kOp, "cells", cells, "features", map);
    count += map.size(0) * map.size(2) * map.size(3);
  }
  check_shape(kOp, "cells", cells, "(N,)", 1);
  TILEWRIGHT_CHECK(kOp, cells.scalar_type() == at::kLong, "cells must be int64, got ",
                   cells.scalar_type());
  if (!cells.is_cpu() || !holds_data(cells) || cells.numel() == 0) return;
  const auto lowest = cells.min().item<int64_t>(), highest = cells.max().item<int64_t>();
  TILEWRIGHT_CHECK(kOp, lowest >= 0 && highest < count, "cells must lie in [0, ", count, "), got ",
                   lowest < 0 ? lowest : highest);
}

at::Tensor gather(at::TensorList features, const at::Tensor& cells) {
  check_inputs(features, cells);
  int64_t cells_per_image = 0;
  for (const auto& map : features) cells_per_image += map.size(2) * map.size(3);
  // Only a cell out of range, which cannot be told on CUDA, needs to be moved to an image.
  const auto image = cells.floor_divide(std::max<int64_t>(cells_per_image, 1))
                         .clamp(0, std::max<int64_t>(features[0].size(0) - 1, 0));
  const auto cell = cells.remainder(std::max<int64_t>(cells_per_image, 1));
  // Every level is asked for every cell, at some place of it where the cell is of another level:
  // few cells are cheap, and no size depends on data.
  auto patches = at::zeros({cells.size(0), kTaps, features[0].size(1)}, features[0].options());
  int64_t start = 0;
  for (const auto& map : features) {
    const int64_t end = start + map.size(2) * map.size(3);
    if (start < end) {
      const auto here = (cell >= start).logical_and(cell < end).view({-1, 1, 1});
      const auto place = cell.clamp(start, end - 1) - start;
      patches = at::where(here, patches_of_map(map, image, place), patches);
    }
    start = end;
  }
  return patches.flatten(1);
}

}  // namespace

at::Tensor gather_patches(at::TensorList features, const at::Tensor& cells) {
  static const auto op = operator_handle<decltype(gather_patches)>("tilewright::gather_patches");
  return op.call(features, cells);
}

}  // namespace tilewright

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.def("gather_patches(Tensor[] features, Tensor cells) -> Tensor", {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("gather_patches", &tilewright::gather);
}
