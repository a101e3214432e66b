// The definition of contrastive_lse in ATen's operators: it stores all scores.
#include "tilewright/contrastive/contrastive_composite.h"

#include <ATen/ATen.h>

#include <limits>

#include "tilewright/core/differentiate.h"

namespace tilewright {
namespace {

using at::Tensor;

// (N, M): whether a query and a key are no pair; undefined where all are.
Tensor no_pairs(const ContrastiveArgs& args, const Tensor& query, const Tensor& key,
                const OptionalTensor& exclude) {
  const auto options = query.options().dtype(at::kLong);
  const Tensor index = at::arange(key.size(0), options).unsqueeze(0);
  if (args.diagonal) {
    const Tensor query_index = at::arange(query.size(0), options).unsqueeze(1);
    const auto group = [&](const Tensor& rows) { return rows.div(args.exclude_count, "floor"); };
    return group(query_index) == group(index);
  }
  if (!exclude) return {};
  const Tensor first = exclude->unsqueeze(1);
  return first.ge(0).logical_and(index.ge(first)).logical_and(index < first + args.exclude_count);
}

// Where every score is -inf the sum is, and nothing depends on it: logsumexp's gradient is NaN.
Tensor sums_over(const Tensor& scores, int64_t dim) {
  const Tensor none = scores.eq(-std::numeric_limits<double>::infinity()).all(dim, true);
  return scores.masked_fill(none, 0).logsumexp(dim).masked_fill(
      none.squeeze(dim), -std::numeric_limits<double>::infinity());
}

}  // namespace

ContrastiveGrads contrastive_composite_backward(const ContrastiveArgs& args,
                                                const ContrastiveSums& grads, const Tensor& query,
                                                const OptionalTensor& key,
                                                const OptionalTensor& exclude,
                                                const ContrastiveNeeds& needs) {
  if (query.size(0) == 0 || (key && key->size(0) == 0)) {
    return {at::zeros_like(query), key ? at::zeros_like(*key) : Tensor()};
  }
  const DifferentiableHere guard;
  const Tensor q = own(query), k = key ? own(*key) : Tensor();
  const auto type = contrastive_sums_type(query.scalar_type());
  const Tensor keys = key ? k.to(type) : q.to(type);
  Tensor scores = at::matmul(q.to(type), keys.t()) * args.scale;
  const Tensor none = no_pairs(args, q, keys, exclude);
  if (none.defined()) {
    scores = scores.masked_fill(none, -std::numeric_limits<double>::infinity());
  }
  DifferentiableOutputs outputs;
  outputs.add(sums_over(scores, 1), std::get<0>(grads));
  if (args.columns) outputs.add(sums_over(scores, 0), std::get<1>(grads));
  const auto found = outputs.differentiate({q, k}, {needs[0], needs[1] && key.has_value()});
  return {found[0], found[1]};
}

}  // namespace tilewright
