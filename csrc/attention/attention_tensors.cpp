// The tensors that attention makes, on every machine: results and gradients with the memory order
// of what they belong to, views that kernels can walk, the state of dropout.
#include <ATen/ops/as_strided.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/randint.h>

#include <limits>
#include <utility>

#include "tilewright/attention/attention_args.h"

namespace tilewright {
namespace {

// `sizes` laid out densely in the order of like's dimensions; the last stays innermost. Where the
// order is open (sizes of 1, expanded dimensions) it is that of a contiguous tensor.
at::Tensor empty_ordered(const at::Tensor& like, const c10::SymDimVector& sizes) {
  const int64_t dims = like.dim();
  c10::SmallVector<int64_t, 4> order;  // outermost first
  // What only data will tell (sizes under export) leaves the order of a contiguous tensor.
  const auto inside = [&](int64_t a, int64_t b) {
    const auto free = [&](int64_t d) {
      return TORCH_GUARD_OR_FALSE(like.sym_size(d).sym_eq(1)) ||
             TORCH_GUARD_OR_FALSE(like.sym_stride(d).sym_eq(0));
    };
    return !free(a) && !free(b) &&
           TORCH_GUARD_OR_FALSE(like.sym_stride(a).sym_lt(like.sym_stride(b)));
  };
  for (int64_t d = 0; d + 1 < dims; ++d) {
    auto place = order.end();
    for (auto it = order.end(); it != order.begin();) {
      if (inside(*--it, d)) place = it;
    }
    order.insert(place, d);
  }
  order.push_back(dims - 1);
  c10::SymDimVector strides(dims);
  c10::SymInt step = 1;
  for (int64_t i = dims - 1; i >= 0; --i) {
    strides[order[i]] = step;
    step = step * sizes[order[i]].max(1);
  }
  return at::empty_strided_symint(sizes, strides, like.options());
}

c10::SymDimVector sizes_of(const at::Tensor& tensor) {
  const auto sizes = tensor.sym_sizes();
  return {sizes.begin(), sizes.end()};
}

}  // namespace

at::ScalarType accumulate_dtype(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

at::Tensor empty_laid_out(const at::Tensor& like) { return empty_ordered(like, sizes_of(like)); }

TensorPair attention_outputs(const at::Tensor& query, const at::Tensor& value, bool packed) {
  auto sizes = sizes_of(query);
  sizes.back() = value.sym_size(-1);
  auto lse_sizes = sizes_of(query);
  lse_sizes.pop_back();
  if (packed) std::swap(lse_sizes[0], lse_sizes[1]);
  return {
      empty_ordered(query, sizes),
      at::empty_symint(lse_sizes, query.options().dtype(accumulate_dtype(query.scalar_type())))};
}

AttentionGrads attention_grads(const at::Tensor& query, const at::Tensor& key,
                               const at::Tensor& value, const AttentionExtras& extras,
                               const ExtraNeeds& needs) {
  const auto sums = query.options().dtype(accumulate_dtype(query.scalar_type()));
  const auto extra = [&](size_t i, const at::Tensor& of, const at::TensorOptions& options) {
    if (!needs[i] || !of.defined()) return at::empty({0}, options);
    return at::empty_symint(of.sym_sizes(), options);
  };
  return {empty_laid_out(query),
          empty_laid_out(key),
          empty_laid_out(value),
          extra(0, extras.bias, extras.bias.defined() ? extras.bias.options() : sums),
          extra(1, extras.alibi_slopes, sums),
          extra(2, extras.sinks, sums)};
}

at::Tensor attention_rng_state(const at::Tensor& query, double dropout_p,
                               const std::optional<at::Tensor>& rng_state) {
  if (!(dropout_p > 0)) return {};
  if (rng_state) return *rng_state;
  return at::randint(std::numeric_limits<int64_t>::max(), {2}, query.options().dtype(at::kLong));
}

at::Tensor with_unit_stride(const at::Tensor& tensor) {
  if (tensor.stride(-1) == 1 || tensor.size(-1) == 1) return tensor;
  return tensor.contiguous();
}

at::Tensor expand_bias(const at::Tensor& bias, int64_t batch, int64_t heads, int64_t q_len,
                       int64_t k_len) {
  const auto expand = [&](const at::Tensor& tensor) {
    return tensor.expand({batch, heads, q_len, k_len});
  };
  const at::Tensor expanded = expand(bias);
  if (expanded.stride(-1) == 0 || expanded.stride(-1) == 1) return expanded;
  if (k_len > 1) return expand(bias.contiguous());
  auto strides = expanded.strides().vec();
  strides.back() = 1;
  return expanded.as_strided(expanded.sizes(), strides);
}

}  // namespace tilewright
