// contrastive_lse on CUDA: tensors to parameters and launches. Each side's sums and gradients are a
// pass over tiles of its rows; both directions of a pair are one pass each.
#include <ATen/TensorOperators.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/sum.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tilewright/contrastive/contrastive_args.h"
#include "tilewright/contrastive/contrastive_launch.h"
#include "tilewright/core/check.h"
#include "tilewright/core/cuda/host.h"
#include "tilewright/core/dispatch.h"
#include "tilewright/core/log2.h"

namespace tilewright {
namespace {

// Rows as the kernels read them: those for tensor cores in whole packs of 16 bytes, zeros behind.
at::Tensor readable_rows(const at::Tensor& rows) {
  constexpr int64_t kPack = 8;
  const bool packs = rows.element_size() == 2 && contrastive_takes_mma<c10::Half>(rows.size(1));
  if (packs && rows.size(1) % kPack != 0) {
    return at::constant_pad_nd(rows, {0, kPack - rows.size(1) % kPack}).contiguous();
  }
  const at::Tensor dense = rows.contiguous();
  const bool aligned = reinterpret_cast<uintptr_t>(dense.const_data_ptr()) % 16 == 0;
  return packs && !aligned ? dense.clone() : dense;
}

void check_row_count(const char* op, const char* name, const at::Tensor& rows) {
  TILEWRIGHT_CHECK(op, rows.size(0) < int64_t(1) << 30 && rows.size(1) < int64_t(1) << 30, name,
                   " must have fewer than 2^30 rows and columns on CUDA, got shape ",
                   shape_of(rows));
}

// Lines and the others that they meet.
struct ContrastivePass {
  at::Tensor lines, others;
  at::Tensor line_exclude, other_exclude;  // undefined where nothing is excluded
};

template <class T>
ContrastiveParams<device_t<T>> pass_params(const ContrastiveArgs& args,
                                           const ContrastivePass& pass) {
  ContrastiveParams<device_t<T>> p{};
  p.lines = const_data<T>(pass.lines), p.others = const_data<T>(pass.others);
  p.line_count = int(pass.lines.size(0)), p.other_count = int(pass.others.size(0));
  p.depth = int(pass.lines.size(1));
  p.diagonal = args.diagonal;
  if (pass.line_exclude.defined()) p.line_exclude = const_data<int64_t>(pass.line_exclude);
  if (pass.other_exclude.defined()) p.other_exclude = const_data<int64_t>(pass.other_exclude);
  p.exclude_count = args.exclude_count;
  p.factor = accumulate_t<device_t<T>>(args.scale * kLog2E);
  p.tf32 = std::is_same_v<T, float> && tf32_allowed();
  return p;
}

// As many splits of each walk as give the GPU two blocks per multiprocessor. What they leave to add
// up is as large as those blocks' tiles.
int splits_for(const ContrastiveGrid& grid) {
  constexpr int64_t kMost = 64;
  const int64_t wanted = ceil_div(2 * multiprocessors(), grid.blocks);
  return int(std::clamp<int64_t>(std::min(wanted, grid.steps), 1, kMost));
}

at::Tensor pass_sums(const ContrastiveArgs& args, const ContrastivePass& pass) {
  const auto type = contrastive_sums_type(pass.lines.scalar_type());
  at::Tensor parts;
  dispatch_floating(args.op, pass.lines.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    auto p = pass_params<T>(args, pass);
    p.splits = splits_for(contrastive_forward_grid(p));
    parts = at::empty({p.splits, p.line_count}, pass.lines.options().dtype(type));
    p.lse = mutable_data<accumulate_t<device_t<T>>>(parts);
    launch_contrastive_forward(p);
  });
  return parts.size(0) == 1 ? parts.squeeze(0) : at::logsumexp(parts, 0);
}

ContrastiveSums contrastive_lse_cuda(const at::Tensor& query, const OptionalTensor& key,
                                     const OptionalTensor& exclude, double scale, bool columns,
                                     int64_t exclude_count, bool diagonal) {
  const ContrastiveArgs args("contrastive_lse", key, scale, columns, exclude_count, diagonal);
  check_contrastive(args, query, key, exclude);
  check_row_count(args.op, "query", query);
  if (key) check_row_count(args.op, "key", *key);
  const DeviceGuard guard(query);
  auto [row_sums, column_sums] = contrastive_output(args, query, key);
  if (query.size(0) == 0 || (key && key->size(0) == 0)) {
    row_sums.fill_(-std::numeric_limits<double>::infinity());
    column_sums.fill_(-std::numeric_limits<double>::infinity());
    return {row_sums, column_sums};
  }
  const at::Tensor rows = readable_rows(query), others = key ? readable_rows(*key) : rows;
  const at::Tensor excluded = exclude ? exclude->contiguous() : at::Tensor();
  row_sums = pass_sums(args, {rows, others, excluded, {}});
  if (columns) column_sums = pass_sums(args, {others, rows, {}, {}});
  return {row_sums, column_sums};
}

// The sums of a side and their gradients, as the kernels read them; undefined where it has none.
struct SideGrads {
  at::Tensor lse, grad;

  SideGrads() = default;
  // `missing`: powers of 2 by which the shares that come of the sums are larger.
  SideGrads(const at::Tensor& sums, const at::Tensor& given, const at::Tensor& unit,
            double missing) {
    // A row that meets nobody has no shares and no gradient.
    const double infinity = std::numeric_limits<double>::infinity();
    const at::Tensor alone = sums == -infinity;
    lse = (sums * kLog2E).sub_(missing).masked_fill_(alone, infinity);
    grad = (unit.defined() ? given / unit : given.clone()).masked_fill_(alone, 0).contiguous();
  }
};

struct PassGrads {
  SideGrads lines, others;
  at::Tensor unit;  // what the gradients were divided by
  double missing;
};

// (lines, columns), of which the passes may have more than the tensor.
at::Tensor pass_grad(const ContrastiveArgs& args, const ContrastivePass& pass,
                     const PassGrads& grads, int64_t columns) {
  at::Tensor grad, parts;
  dispatch_floating(args.op, pass.lines.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    using Acc = accumulate_t<device_t<T>>;
    auto p = pass_params<T>(args, pass);
    if (grads.lines.lse.defined()) {
      p.line_lse = const_data<Acc>(grads.lines.lse),
      p.line_grad = const_data<Acc>(grads.lines.grad);
    }
    if (grads.others.lse.defined()) {
      p.other_lse = const_data<Acc>(grads.others.lse);
      p.other_grad = const_data<Acc>(grads.others.grad);
    }
    p.most_exponent = Acc(grads.missing);
    p.grad_scale = Acc(std::ldexp(args.scale, -int(grads.missing)));
    if (grads.unit.defined()) p.grad_unit = const_data<Acc>(grads.unit);
    p.splits = splits_for(contrastive_grad_grid(p));
    const auto options = pass.lines.options();
    if (p.splits == 1) {
      grad = at::empty({p.line_count, p.depth}, options);
      p.grad = mutable_data<T>(grad);
    } else {
      const auto type = contrastive_sums_type(pass.lines.scalar_type());
      parts = at::empty({p.splits, p.line_count, p.depth}, options.dtype(type));
      p.partial_grad = mutable_data<Acc>(parts);
    }
    launch_contrastive_grad(p);
  });
  if (parts.defined()) grad = at::sum(parts, 0).to(pass.lines.scalar_type());
  return grad.narrow(1, 0, columns).contiguous();
}

// 16-bit products take the derivatives by scores as factors: they are divided by the largest
// gradient, and float16's, which ends at 6e-8, multiplied by 2^14.
PassGrads pass_grads(const ContrastiveSums& grads, const at::Tensor& rows, bool columns) {
  PassGrads found{{}, {}, {}, 0};
  if (rows.element_size() != 2 || !contrastive_takes_mma<c10::Half>(rows.size(1))) return found;
  found.missing = rows.scalar_type() == at::kHalf ? 14 : 0;
  at::Tensor most = std::get<0>(grads).abs().amax();
  if (columns) most = at::maximum(most, std::get<1>(grads).abs().amax());
  found.unit = at::where(most > 0, most, 1.0).to(std::get<0>(grads).scalar_type());
  return found;
}

ContrastiveGrads contrastive_lse_backward_cuda(
    const at::Tensor& grad_rows, const at::Tensor& grad_columns, const at::Tensor& query,
    const OptionalTensor& key, const OptionalTensor& exclude, const at::Tensor& rows,
    const at::Tensor& columns, double scale, bool with_columns, int64_t exclude_count,
    bool diagonal, ContrastiveNeeds needs) {
  const ContrastiveArgs args("_contrastive_lse_backward", key, scale, with_columns, exclude_count,
                             diagonal);
  check_contrastive_backward(args, {grad_rows, grad_columns}, query, key, exclude, {rows, columns});
  check_row_count(args.op, "query", query);
  if (key) check_row_count(args.op, "key", *key);
  const DeviceGuard guard(query);
  auto [grad_query, grad_key] = contrastive_grads(query, key, needs);
  if (query.size(0) == 0 || (key && key->size(0) == 0)) {
    return {grad_query.zero_(), grad_key.zero_()};
  }
  const at::Tensor lines = readable_rows(query), others = key ? readable_rows(*key) : lines;
  const at::Tensor excluded = exclude ? exclude->contiguous() : at::Tensor();
  PassGrads grads = pass_grads({grad_rows, grad_columns}, lines, with_columns);
  grads.lines = SideGrads(rows, grad_rows, grads.unit, grads.missing);
  if (with_columns) grads.others = SideGrads(columns, grad_columns, grads.unit, grads.missing);
  if (!key) grads.others = grads.lines;
  const int64_t depth = query.size(1);
  if (needs[0]) grad_query = pass_grad(args, {lines, others, excluded, {}}, grads, depth);
  if (needs[1] && key) {
    std::swap(grads.lines, grads.others);
    grad_key = pass_grad(args, {others, lines, {}, excluded}, grads, depth);
  }
  return {grad_query, grad_key};
}

TILEWRIGHT_DEVICE_IMPL(m) {
  m.impl("_contrastive_lse", &contrastive_lse_cuda);
  m.impl("_contrastive_lse_backward", &contrastive_lse_backward_cuda);
}

}  // namespace
}  // namespace tilewright
