// Losses that look at samples of a vocabulary: compositions of contrastive_lse and ATen.
#include "tilewright/contrastive/sampled_losses.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <cmath>

#include "tilewright/contrastive/contrastive_args.h"
#include "tilewright/contrastive/contrastive_lse.h"
#include "tilewright/contrastive/positive_loss.h"
#include "tilewright/core/check.h"
#include "tilewright/core/data_at_hand.h"
#include "tilewright/core/operator_handle.h"

namespace tilewright {
namespace {

using at::Tensor;

void check_sampled(const char* op, const Tensor& input, const Tensor& weight, const Tensor& target,
                   const Tensor& noise, const Tensor& log_noise, const OptionalTensor& bias,
                   bool sparse) {
  check_floating(op, "input", input);
  check_shape(op, "input", input, "(N, D)", 2);
  TILEWRIGHT_CHECK(op, input.sym_size(0) > 0 && input.sym_size(1) > 0,
                   "input must have rows and features, got ", shape_of(input));
  check_given(op, "weight", weight);
  TILEWRIGHT_CHECK(op, weight.dim() == 2 && weight.sym_size(1) == input.sym_size(1),
                   "weight must have shape (V, ", input.sym_size(1), "), got ", shape_of(weight));
  check_dtype_of(op, "weight", weight, "input", input);
  check_same_device(op, "input", input, "weight", weight);
  TILEWRIGHT_CHECK(
      op, !sparse || weight.element_size() > 2,
      "sparse needs a weight of float64 or float32, whose sparse gradients PyTorch adds "
      "up, got ",
      weight.scalar_type());
  check_index(op, "target", target, "input", input);
  check_given(op, "noise", noise);
  TILEWRIGHT_CHECK(op, noise.dim() == 1 && noise.sym_size(0) > 0,
                   "noise must have shape (K,), K > 0, got ", shape_of(noise));
  TILEWRIGHT_CHECK(op, noise.scalar_type() == at::kLong, "noise must be int64, got ",
                   noise.scalar_type());
  check_same_device(op, "input", input, "noise", noise);
  check_given(op, "log_noise", log_noise);
  TILEWRIGHT_CHECK(op, log_noise.dim() == 1 && log_noise.sym_size(0) == weight.sym_size(0),
                   "log_noise must have shape (V,) = (", weight.sym_size(0), ",), got ",
                   shape_of(log_noise));
  TILEWRIGHT_CHECK(op,
                   log_noise.scalar_type() == at::kFloat || log_noise.scalar_type() == at::kDouble,
                   "log_noise must be float32 or float64, got ", log_noise.scalar_type());
  check_same_device(op, "input", input, "log_noise", log_noise);
  if (bias) {
    TILEWRIGHT_CHECK(op, bias->dim() == 1 && bias->sym_size(0) == weight.sym_size(0),
                     "bias must have shape (V,) = (", weight.sym_size(0), ",), got ",
                     shape_of(*bias));
    check_dtype_of(op, "bias", *bias, "input", input);
    check_same_device(op, "input", input, "bias", *bias);
  }
  check_rows_of(op, "target", target, "weight", weight);
  check_rows_of(op, "noise", noise, "weight", weight);
  if (has_data_at_hand(log_noise) && has_data_at_hand(noise)) {
    const Tensor drawn = log_noise.index_select(0, noise);
    TILEWRIGHT_CHECK(op, drawn.isfinite().all().item<bool>(),
                     "log_noise must be finite for every word that was drawn");
    constexpr double kRounding = 1e-5;  // of the logarithm of a word that is almost certain
    const auto most = drawn.max().item<double>();
    TILEWRIGHT_CHECK(op, most <= kRounding,
                     "log_noise must hold logarithms of probabilities, which are at most 0, got ",
                     most);
  }
}

// What a loss reads of some words, in the type of sums but for their rows.
struct Words {
  Tensor rows, bias, log_noise;

  Words(const Tensor& words, const Tensor& weight, const OptionalTensor& all_bias,
        const Tensor& all_log_noise, at::ScalarType dtype, bool sparse)
      : rows(at::embedding(weight, words, -1, false, sparse).to(dtype)),
        log_noise(all_log_noise.detach().index_select(0, words).to(contrastive_sums_type(dtype))) {
    bias = all_bias ? all_bias->index_select(0, words).to(log_noise) : at::zeros_like(log_noise);
  }
};

// input . row + bias of each row's own word, in the type of sums: (N,).
Tensor own_scores(const Tensor& input, const Words& own) {
  return (input.to(own.bias) * own.rows.to(own.bias)).sum(1) + own.bias;
}

Tensor nce_loss_composed(const Tensor& given_input, const Tensor& weight, const Tensor& target,
                         const Tensor& noise, const Tensor& log_noise, const OptionalTensor& bias,
                         double log_partition, bool sparse) {
  const char* op = "nce_loss";
  check_sampled(op, given_input, weight, target, noise, log_noise, bias, sparse);
  const Tensor input = in_products_type(given_input);
  TILEWRIGHT_CHECK(op, std::isfinite(log_partition), "log_partition must be finite, got ",
                   log_partition);
  if (has_data_at_hand(log_noise) && has_data_at_hand(target)) {
    TILEWRIGHT_CHECK(op, log_noise.index_select(0, target).isfinite().all().item<bool>(),
                     "log_noise must be finite for every target: without a chance to be noise it "
                     "is nothing to tell apart");
  }
  const Words own(target, weight, bias, log_noise, input.scalar_type(), sparse);
  const Words other(noise, weight, bias, log_noise, input.scalar_type(), sparse);
  const Tensor count = at::log(at::scalar_tensor(noise.sym_size(0), own.bias.options()));
  const auto against_noise = [&](const Tensor& scores, const Words& words) {
    return scores - log_partition - count - words.log_noise;
  };
  const Tensor own_logits = against_noise(own_scores(input, own), own);
  const Tensor products = at::matmul(input, other.rows.t()).to(own.bias) + other.bias;
  const Tensor noise_logits = against_noise(products, other);
  return (softplus_of(-own_logits) + softplus_of(noise_logits).sum(1)).mean();
}

// Columns whose products with ones add up to `added`, to the digits of its own type: in 16 bits it
// takes three.
Tensor columns_of(const Tensor& added, at::ScalarType dtype) {
  if (dtype == added.scalar_type()) return added.unsqueeze(1);
  const Tensor first = added.to(dtype);
  const Tensor rest = (added - first.to(added)).detach();  // the first has the gradient
  const Tensor second = rest.to(dtype);
  return at::stack({first, second, (rest - second.to(rest)).to(dtype)}, 1);
}

Tensor sampled_softmax_loss_composed(const Tensor& given_input, const Tensor& weight,
                                     const Tensor& target, const Tensor& noise,
                                     const Tensor& log_noise, const OptionalTensor& bias,
                                     bool sparse) {
  const char* op = "sampled_softmax_loss";
  check_sampled(op, given_input, weight, target, noise, log_noise, bias, sparse);
  const Tensor input = in_products_type(given_input);
  // Words that were drawn several times stand once among the keys, with their number: so a target
  // is left out by one index. Their other places are so far below all others that they vanish.
  constexpr double kNowhere = -3e4;
  const Tensor words = std::get<0>(noise.sort());
  const Tensor first = at::searchsorted(words, words);
  const Tensor times = at::searchsorted(words, words, false, /*right=*/true) - first;
  const Tensor stands = first.eq(at::arange(c10::Scalar(words.sym_size(0)), words.options()));
  const Words own(target, weight, bias, log_noise, input.scalar_type(), sparse);
  const Words other(words, weight, bias, log_noise, input.scalar_type(), sparse);
  const Tensor share = at::log(times.to(other.bias) / noise.sym_size(0)) - other.log_noise;
  const Tensor added =
      at::where(stands, other.bias + share, at::full({}, kNowhere, share.options()));
  const Tensor columns = columns_of(added, input.scalar_type());
  const Tensor keys = at::cat({other.rows, columns}, 1);
  const Tensor ones = at::ones_symint({input.sym_size(0), columns.sym_size(1)}, input.options());
  const Tensor place = at::searchsorted(words, target).clamp_max(words.sym_size(0) - 1);
  const Tensor hit = words.index_select(0, place).eq(target);
  const Tensor others = contrastive_lse(at::cat({input, ones}, 1), keys,
                                        at::where(hit, place, at::full({}, -1, place.options())));
  const Tensor score = own_scores(input, own);
  return loss_of_positive(score, others).mean();
}

}  // namespace

Tensor nce_loss(const Tensor& input, const Tensor& weight, const Tensor& target,
                const Tensor& noise, const Tensor& log_noise, const OptionalTensor& bias,
                double log_partition, bool sparse) {
  static const auto op = operator_handle<decltype(nce_loss)>("tilewright::nce_loss");
  return op.call(input, weight, target, noise, log_noise, bias, log_partition, sparse);
}
Tensor sampled_softmax_loss(const Tensor& input, const Tensor& weight, const Tensor& target,
                            const Tensor& noise, const Tensor& log_noise,
                            const OptionalTensor& bias, bool sparse) {
  static const auto op =
      operator_handle<decltype(sampled_softmax_loss)>("tilewright::sampled_softmax_loss");
  return op.call(input, weight, target, noise, log_noise, bias, sparse);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def(
      "nce_loss(Tensor input, Tensor weight, Tensor target, Tensor noise, Tensor log_noise, "
      "Tensor? bias=None, float log_partition=0.0, bool sparse=False) -> Tensor",
      tags);
  m.def(
      "sampled_softmax_loss(Tensor input, Tensor weight, Tensor target, Tensor noise, "
      "Tensor log_noise, Tensor? bias=None, bool sparse=False) -> Tensor",
      tags);
}
TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("nce_loss", &nce_loss_composed);
  m.impl("sampled_softmax_loss", &sampled_softmax_loss_composed);
}

}  // namespace tilewright
