// The definition of deformable RoI pooling in ATen's operators: every bin's weights of all rows and
// of all columns, and their products with the maps.
#include "tilewright/deform/deform_pool_composite.h"

#include <ATen/ATen.h>

#include "tilewright/core/differentiate.h"
#include "tilewright/deform/deform_args.h"

namespace tilewright {
namespace {

using at::Tensor;

struct Axis {
  Tensor weights;  // (K, classes, bins, size)
  Tensor counts;   // (K, classes, bins)
};

// One axis of the boxes that `low` and `high` bound. `places`: (bins,), each bin's index on the
// axis. moves: (K, classes, bins), of 1.
Axis axis_of(const DeformPoolShape& s, const Tensor& low, const Tensor& high, const Tensor& places,
             const Tensor& moves, int64_t pooled, int64_t size) {
  Tensor start, length, grid;
  if (s.position_sensitive) {
    const auto rounded = [](const Tensor& t) {  // half away from zero
      return t.sign() * (t.abs() + 0.5).floor();
    };
    start = rounded(low) * s.spatial_scale - 0.5;
    length = ((rounded(high) + 1) * s.spatial_scale - 0.5 - start).clamp_min(0.1);
  } else {
    start = low * s.spatial_scale - 0.5;
    length = high * s.spatial_scale - 0.5 - start;
  }
  const Tensor bin = length / double(pooled);
  grid = s.samples > 0 ? at::full_like(bin, double(s.samples))
                       : bin.ceil().clamp(0, double(kMaxAdaptiveGrid));
  const auto of_box = [](const Tensor& t) { return t.view({-1, 1, 1, 1}); };
  const Tensor step = of_box(bin) / of_box(grid);
  const Tensor origin = of_box(start) + places.view({1, 1, -1, 1}) * of_box(bin) +
                        step * (s.position_sensitive ? 0.0 : 0.5) +
                        (moves * (s.gamma * length).view({-1, 1, 1})).unsqueeze(-1);
  // Of many samples those that can lie on the map, and some beside them: half a pixel apart or more
  // where their number is the box's own.
  const int64_t all = bin.numel() == 0 ? 0 : grid.nan_to_num(0, 0, 0).max().item().toLong();
  const int64_t most = s.samples > 0 ? all : std::min(all, 2 * size + 8);
  Tensor index = at::arange(most, bin.options());
  if (most < all) {
    index = ((-1 - origin.detach()) / step - 2).floor().nan_to_num(0).clamp_min(0) + index;
  }
  const Tensor at = origin + index * step;
  const double edge = s.position_sensitive ? 0.5 : 1;
  const Tensor there = at.ge(-edge)
                           .logical_and(at.le(double(size) - 1 + edge))
                           .logical_and(at.le(double(size)))
                           .logical_and(index < of_box(grid));
  const Tensor safe = at::where(there, at, 0.0).clamp(0, double(size - 1));
  const Tensor below = safe.detach().floor(), share = safe - below;
  const Tensor first = below.to(at::kLong), second = (first + 1).clamp_max(size - 1);
  auto sizes = first.sizes().vec();
  sizes.back() = size;
  const Tensor none = at::zeros({}, safe.options());
  const Tensor weights = at::zeros(sizes, safe.options())
                             .scatter_add(3, first, at::where(there, 1 - share, none))
                             .scatter_add(3, second, at::where(there, share, none));
  const Tensor seen = there.to(safe.scalar_type()).sum(3);
  const Tensor counts = (s.position_sensitive ? seen : grid.view({-1, 1, 1}).expand_as(seen));
  return {weights, counts.clamp_min(1).detach()};
}

// (K, outs, PH, PW)
Tensor composite(const DeformPoolShape& s, const Tensor& input, const Tensor& given_rois,
                 const Tensor& offset) {
  // Others pool nothing; their coordinates would be no part of the result, but of its derivatives.
  const Tensor finite = given_rois.narrow(1, 1, 4).isfinite().all(1);
  const Tensor rois = at::where(finite.unsqueeze(1), given_rois, 0.0);
  const Tensor bins = at::arange(s.bins(), rois.options());
  const Tensor rows = bins.div(double(s.pooled_width), "floor"),
               columns = bins - rows * double(s.pooled_width);
  std::vector<int64_t> parts, maps;
  for (int64_t bin = 0; bin < s.bins(); ++bin) {
    parts.push_back(s.part_of(bin));
    maps.push_back(s.map_of(bin));
  }
  const auto long_on = [&](const std::vector<int64_t>& values) {
    return at::tensor(values, at::kLong).to(rois.device());
  };
  const Tensor moves =
      offset.reshape({s.rois, s.classes, 2, s.parts()}).index_select(3, long_on(parts));
  const Axis y = axis_of(s, rois.select(1, 2), rois.select(1, 4), rows, moves.select(2, 1),
                         s.pooled_height, s.height);
  const Axis x = axis_of(s, rois.select(1, 1), rois.select(1, 3), columns, moves.select(2, 0),
                         s.pooled_width, s.width);
  const Tensor share = (y.counts * x.counts).reciprocal();  // (K, classes, bins)
  const Tensor pixels =
      input.reshape({s.batch, s.classes, s.class_channels(), s.maps(), s.height, s.width});
  Tensor out = at::zeros({s.rois, s.classes, s.class_channels(), s.bins()}, input.options());
  for (int64_t n = 0; n < s.batch; ++n) {
    const Tensor own =
        rois.select(1, 0).to(at::kLong).eq(n).logical_and(finite).nonzero().select(1, 0);
    if (own.numel() == 0) continue;
    const auto of_image = [&](const Tensor& t) { return t.index_select(0, own); };
    Tensor image =
        at::zeros({own.numel(), s.classes, s.class_channels(), s.bins()}, input.options());
    for (int64_t map = 0; map < s.maps(); ++map) {
      std::vector<int64_t> read;
      for (int64_t bin = 0; bin < s.bins(); ++bin) {
        if (maps[size_t(bin)] == map) read.push_back(bin);
      }
      if (read.empty()) continue;
      const Tensor which = long_on(read);
      const auto of_bins = [&](const Tensor& t) { return of_image(t).index_select(2, which); };
      const Tensor part = at::einsum(
          "kaby,kabx,acyx,kab->kacb",
          {of_bins(y.weights), of_bins(x.weights), pixels[n].select(2, map), of_bins(share)});
      image = image.index_add(3, which, part);
    }
    out = out.index_add(0, own, image);
  }
  return out.reshape({s.rois, s.outs, s.pooled_height, s.pooled_width});
}

}  // namespace

DeformPoolGrads deform_pool_composite_backward(const DeformPoolArgs& args, const Tensor& grad,
                                               const Tensor& input, const Tensor& rois,
                                               const Tensor& offset, const DeformPoolNeeds& needs) {
  if (input.numel() == 0) return {at::zeros_like(input), at::zeros_like(offset)};
  const DifferentiableHere guard;
  const Tensor i = own(input), o = own(offset);
  const auto sums = deform_sums_type(input);
  DifferentiableOutputs outputs;
  outputs.add(composite(deform_pool_shape(args, input, rois, offset), i.to(sums), rois.to(sums),
                        o.to(sums)),
              grad.to(sums));
  const auto grads = outputs.differentiate({i, o}, {needs[0], needs[1]});
  return {grads[0], grads[1]};
}

}  // namespace tilewright
