// Neighbourhoods by rows: schema, checks, and index_select over maps with channels last.
#include "tilewright/models/gather_patches.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <torch/library.h>

#include "tilewright/core/check.h"
#include "tilewright/core/operator_handle.h"
#include "tilewright/models/holds_data.h"

namespace tilewright {
namespace {

constexpr int64_t kSide = 3, kTaps = kSide * kSide;

// (N, 9 * C) of the cells (N,) of one map, counted in their image, of images (N,).
at::Tensor patches_of_map(const at::Tensor& map, const at::Tensor& images,
                          const at::Tensor& cells) {
  const int64_t height = map.size(2), width = map.size(3);
  const auto tap = at::arange(kTaps, cells.options());
  const auto y = (cells.floor_divide(width).unsqueeze(1) + tap.floor_divide(kSide)) - 1;  // (N, 9)
  const auto x = (cells.remainder(width).unsqueeze(1) + tap.remainder(kSide)) - 1;        // (N, 9)
  const auto outside =
      (y < 0).logical_or(y >= height).logical_or(x < 0).logical_or(x >= width).unsqueeze(2);
  const auto row = (images.unsqueeze(1) * height + y.clamp(0, height - 1)) * width +
                   x.clamp(0, width - 1);  // (N, 9)
  return map.permute({0, 2, 3, 1})
      .reshape({-1, map.size(1)})
      .index_select(0, row.flatten())
      .view({-1, kTaps, map.size(1)})
      .masked_fill(outside, 0)
      .flatten(1);
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
  const auto image = cells.floor_divide(std::max<int64_t>(cells_per_image, 1));
  const auto cell = cells.remainder(std::max<int64_t>(cells_per_image, 1));
  std::vector<at::Tensor> places, patches;
  int64_t start = 0;
  for (const auto& map : features) {
    const int64_t end = start + map.size(2) * map.size(3);
    places.push_back((cell >= start).logical_and(cell < end).nonzero().squeeze(1));
    patches.push_back(patches_of_map(map, image.index_select(0, places.back()),
                                     cell.index_select(0, places.back()) - start));
    start = end;
  }
  return at::cat(patches).index_select(0, at::cat(places).argsort());
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
