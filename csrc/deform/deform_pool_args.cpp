// Checks and shapes of deformable RoI pooling.
#include "tilewright/deform/deform_pool_args.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/core/data_at_hand.h"
#include "tilewright/core/huge_pages.h"
#include "tilewright/detection/roi_checks.h"

namespace tilewright {
namespace {

using at::Tensor;

// Which part each bin of an axis belongs to.
Tensor parts_of_bins(int64_t pooled, int64_t parts, const Tensor& like) {
  return at::arange(pooled, like.options().dtype(at::kLong)).mul_(parts).floor_divide_(pooled);
}

}  // namespace

DeformPoolArgs deform_pool_args(double spatial_scale, at::IntArrayRef pooled, at::IntArrayRef parts,
                                int64_t group_size, int64_t samples, double gamma,
                                bool position_sensitive) {
  TILEWRIGHT_CHECK("_deform_pool", pooled.size() == 2 && parts.size() == 2,
                   "pooled and parts must be pairs, got ", pooled.size(), " and ", parts.size(),
                   " numbers");
  return {spatial_scale, {pooled[0], pooled[1]}, {parts[0], parts[1]}, group_size, samples,
          gamma,         position_sensitive};
}

void check_unmoved_pool(const DeformPoolArgs& args, const Tensor& input, const Tensor& rois) {
  const char* op = args.op();
  check_floating(op, "input", input);
  check_given(op, "rois", rois);
  check_shape(op, "input", input, "(N, C, H, W)", 4);
  check_pooled_size(op, args.pooled[0], args.pooled[1]);
  check_spatial_scale(op, args.spatial_scale);
  check_sampling_ratio(op, args.samples,
                       args.position_sensitive ? "sample_per_part" : "sampling_ratio");
  check_rois(op, input, rois);
  TILEWRIGHT_CHECK(op, std::isfinite(args.gamma), args.position_sensitive ? "trans_std" : "gamma",
                   " must be finite, got ", args.gamma);
  if (args.position_sensitive) {
    TILEWRIGHT_CHECK(op, args.samples > 0, "sample_per_part must be positive, got ", args.samples);
  }
  const int64_t most = std::min(args.pooled[0], args.pooled[1]);
  TILEWRIGHT_CHECK(op, args.group_size > 0 && args.group_size <= most,
                   "group_size must lie in [1, pooled_size], got ", args.group_size);
  TILEWRIGHT_CHECK(op,
                   args.parts[0] > 0 && args.parts[0] <= args.pooled[0] && args.parts[1] > 0 &&
                       args.parts[1] <= args.pooled[1],
                   "part_size must lie in [1, pooled_size], got ", args.parts[0]);
  const c10::SymInt maps = args.group_size * args.group_size;
  TILEWRIGHT_CHECK(op, input.sym_size(1) % maps == 0,
                   "input must have a multiple of group_size^2 (", maps, ") channels, got ",
                   input.sym_size(1));
}

void check_deform_pool(const DeformPoolArgs& args, const Tensor& input, const Tensor& rois,
                       const Tensor& offset) {
  const char* op = args.op();
  check_unmoved_pool(args, input, rois);
  check_given(op, "offset", offset);
  const auto type = offset.scalar_type();
  TILEWRIGHT_CHECK(op, type == at::kFloat || type == input.scalar_type(),
                   "offset must be float32 or of input's dtype (", input.scalar_type(), "), got ",
                   type);
  check_same_device(op, "input", input, "offset", offset);
  const bool fits = offset.dim() == 4 && offset.sym_size(0) == rois.sym_size(0) &&
                    offset.sym_size(2) == args.parts[0] && offset.sym_size(3) == args.parts[1];
  if (!args.position_sensitive) {
    TILEWRIGHT_CHECK(op, fits && offset.sym_size(1) == 2, "offset must have shape (",
                     rois.sym_size(0), ", 2, ", args.parts[0], ", ", args.parts[1], "), got ",
                     shape_of(offset));
    return;
  }
  TILEWRIGHT_CHECK(op, fits && offset.sym_size(1) > 0 && offset.sym_size(1) % 2 == 0,
                   "offset must have shape (", rois.sym_size(0), ", 2 * classes, ", args.parts[0],
                   ", ", args.parts[1], "), got ", shape_of(offset));
  const c10::SymInt outs = input.sym_size(1) / (args.group_size * args.group_size),
                    classes = offset.sym_size(1) / 2;
  TILEWRIGHT_CHECK(op, outs % classes == 0, "the classes of offset (", classes,
                   ") must divide output_dim (", outs, ")");
}

void check_deform_pool_backward(const DeformPoolArgs& args, const Tensor& grad, const Tensor& input,
                                const Tensor& rois, const Tensor& offset) {
  check_deform_pool(args, input, rois, offset);
  check_pooled_grad(args.op(), grad, rois, input.sym_size(1) / (args.group_size * args.group_size),
                    args.pooled[0], args.pooled[1]);
  TILEWRIGHT_CHECK(args.op(), grad.scalar_type() == input.scalar_type(),
                   "grad must be of input's dtype (", input.scalar_type(), "), got ",
                   grad.scalar_type());
  check_same_device(args.op(), "input", input, "grad", grad);
}

void check_images(const char* op, const Tensor& input, const Tensor& rois) {
  if (!has_data_at_hand(rois)) return;
  check_image_indices(op, accumulate_type_rois(rois, input.scalar_type()), input.size(0));
}

Tensor deform_pool_output(const DeformPoolArgs& args, const Tensor& input, const Tensor& rois) {
  return at::empty_symint(
      {rois.sym_size(0), input.sym_size(1) / (args.group_size * args.group_size), args.pooled[0],
       args.pooled[1]},
      input.options(), input.suggest_memory_format());
}

DeformPoolGrads deform_pool_grads(const Tensor& input, const Tensor& offset,
                                  const DeformPoolNeeds& needs) {
  const auto none = [](const Tensor& like) {
    return at::empty({0}, like.options().memory_format(std::nullopt));
  };
  return {needs[0] ? prefer_huge_pages(at::empty_symint(input.sym_sizes(), input.options(),
                                                        input.suggest_memory_format()))
                   : none(input),
          needs[1] ? at::empty_symint(offset.sym_sizes(), offset.options()) : none(offset)};
}

DeformPoolShape deform_pool_shape(const DeformPoolArgs& args, const Tensor& input,
                                  const Tensor& rois, const Tensor& offset) {
  DeformPoolShape s{};
  s.rois = rois.size(0);
  s.batch = input.size(0);
  s.height = input.size(2);
  s.width = input.size(3);
  s.group = args.group_size;
  s.outs = input.size(1) / s.maps();
  s.classes = offset.size(1) / 2;
  s.pooled_height = args.pooled[0];
  s.pooled_width = args.pooled[1];
  s.part_height = args.parts[0];
  s.part_width = args.parts[1];
  s.samples = args.samples;
  s.position_sensitive = args.position_sensitive;
  s.spatial_scale = args.spatial_scale;
  s.gamma = args.gamma;
  return s;
}

Tensor deform_pool_maps(const DeformPoolShape& s, const Tensor& input) {
  return input.reshape({s.batch, s.outs, s.maps(), s.height, s.width})
      .permute({0, 2, 3, 4, 1})
      .contiguous();
}

void store_grad_offset(const DeformPoolShape& s, const Tensor& moves, Tensor& grad_offset) {
  Tensor sum = moves[0];
  for (int64_t i = 1; i < moves.size(0); ++i) sum.add_(moves[i]);
  if (s.part_height != s.pooled_height || s.part_width != s.pooled_width) {
    const Tensor rows = parts_of_bins(s.pooled_height, s.part_height, sum),
                 columns = parts_of_bins(s.pooled_width, s.part_width, sum);
    auto sizes = sum.sizes().vec();
    sizes[3] = s.part_height;
    sum = at::zeros(sizes, sum.options()).index_add(3, rows, sum);
    sizes[4] = s.part_width;
    sum = at::zeros(sizes, sum.options()).index_add(4, columns, sum);
  }
  grad_offset.copy_(sum.reshape(grad_offset.sizes()));
}

}  // namespace tilewright
