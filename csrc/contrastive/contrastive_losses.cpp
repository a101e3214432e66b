// Contrastive losses: compositions of contrastive_lse and a few operations on rows.
#include "tilewright/contrastive/contrastive_losses.h"

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

void check_temperature(const char* op, double temperature) {
  TILEWRIGHT_CHECK(op, std::isfinite(temperature) && temperature > 0,
                   "temperature must be positive and finite, got ", temperature);
  TILEWRIGHT_CHECK(op, std::isfinite(float(1.5 / temperature)),
                   "temperature must have an inverse in float32, got ", temperature);
}

void check_features(const char* op, const char* name, const Tensor& rows, const char* shape,
                    int64_t dim) {
  check_floating(op, name, rows);
  check_shape(op, name, rows, shape, dim);
  TILEWRIGHT_CHECK(op, rows.sym_size(-1) > 0, name, " must have features, got ", shape_of(rows));
}

void check_several(const char* op, const char* name, const Tensor& rows, const char* why) {
  TILEWRIGHT_CHECK(op, rows.sym_size(0) > 1, name, " must have at least two rows, ", why, ", got ",
                   shape_of(rows));
}

void check_two_of_a_kind(const char* op, const Tensor& first, const Tensor& second) {
  check_features(op, "first", first, "(N, D)", 2);
  check_features(op, "second", second, "(N, D)", 2);
  TILEWRIGHT_CHECK(op, first.sym_sizes() == second.sym_sizes(), "second must have first's shape ",
                   shape_of(first), ", got ", shape_of(second));
  check_dtype_of(op, "second", second, "first", first);
  check_same_device(op, "first", first, "second", second);
}

// Rows as scores are made of them: in their dtype or autocast's, so that a pair's score is the same
// in all places; of length 1 where `normalize`, the lengths being sums of float32 at least. A row
// of zeros stays what it is.
Tensor rows_of_scores(const Tensor& rows, bool normalize) {
  if (!normalize) return in_products_type(rows);
  const Tensor wide = rows.to(contrastive_sums_type(rows.scalar_type()));
  const Tensor length = at::linalg_vector_norm(wide, 2, -1, /*keepdim=*/true).clamp_min(1e-12);
  return (wide / length).to(contrastive_products_type(rows));
}

Tensor score_rows_composed(const Tensor& rows, bool normalize) {
  check_features("_score_rows", "rows", rows, "(N, D)", 2);
  return rows_of_scores(rows, normalize);
}

// ATen cuts long sums to one number by the number of threads; sums of rows it does not.
Tensor total(const Tensor& numbers) {
  constexpr int64_t kRow = 1024, kLong = 16 * kRow;
  if (is_traced(numbers) || numbers.numel() <= kLong) return numbers.sum();
  const Tensor flat = numbers.flatten();
  const int64_t whole = flat.numel() / kRow * kRow;
  return flat.narrow(0, 0, whole).view({-1, kRow}).sum(1).sum() +
         flat.narrow(0, whole, flat.numel() - whole).sum();
}
Tensor mean_of(const Tensor& numbers) { return total(numbers) / numbers.sym_numel(); }

// Products of rows that belong together, in the type of sums: (..., N).
Tensor dot_rows(const Tensor& a, const Tensor& b) {
  const auto type = contrastive_sums_type(a.scalar_type());
  return (a.to(type) * b.to(type)).sum(-1);
}

Tensor nt_xent_composed(const Tensor& first, const Tensor& second, double temperature) {
  const char* op = "nt_xent";
  check_two_of_a_kind(op, first, second);
  check_several(op, "first", first, "for the others' views are the negatives");
  check_temperature(op, temperature);
  // Views of an example stand side by side, so that two consecutive ones are no negatives.
  const Tensor views =  // (N, 2, D)
      at::stack({rows_of_scores(first, true), rows_of_scores(second, true)}, 1);
  const Tensor own = dot_rows(views.select(1, 0), views.select(1, 1)) / temperature;
  const Tensor others =
      contrastive_lse_self(views.flatten(0, 1), 1 / temperature, /*exclude_count=*/2);
  return mean_of(loss_of_positive(own.unsqueeze(1), others.view_symint({-1, 2})));
}

Tensor info_nce_composed(const Tensor& query, const Tensor& key, const OptionalTensor& positive,
                         double temperature, bool normalize) {
  const char* op = "info_nce";
  check_features(op, "query", query, "(N, D)", 2);
  check_key(op, query, key);
  TILEWRIGHT_CHECK(op, query.sym_size(0) > 0, "query must have rows, got ", shape_of(query));
  check_several(op, "key", key, "a positive and a negative");
  check_temperature(op, temperature);
  if (positive) {
    check_index(op, "positive", *positive, "query", query);
    check_rows_of(op, "positive", *positive, "key", key);
  } else {
    TILEWRIGHT_CHECK(op, key.sym_size(0) >= query.sym_size(0),
                     "key must have a row for each query (", query.sym_size(0),
                     ") where positive is None, got ", shape_of(key));
  }
  const Tensor q = rows_of_scores(query, normalize), k = rows_of_scores(key, normalize);
  const Tensor own =
      positive ? k.index_select(0, *positive) : k.narrow_symint(0, 0, query.sym_size(0));
  const Tensor others = positive ? contrastive_lse(q, k, positive, 1 / temperature)
                                 : contrastive_lse_off_diagonal(q, k, 1 / temperature);
  return mean_of(loss_of_positive(dot_rows(q, own) / temperature, others));
}

Tensor clip_loss_composed(const Tensor& first, const Tensor& second, double temperature,
                          bool normalize) {
  const char* op = "clip_loss";
  check_two_of_a_kind(op, first, second);
  check_several(op, "first", first, "for the other rows are the negatives");
  check_temperature(op, temperature);
  const Tensor a = rows_of_scores(first, normalize), b = rows_of_scores(second, normalize);
  const Tensor own = dot_rows(a, b) / temperature;
  const auto [rows, columns] = contrastive_lse_both(a, b, 1 / temperature, true);
  return (mean_of(loss_of_positive(own, rows)) + mean_of(loss_of_positive(own, columns))) / 2;
}

Tensor supervised_contrastive_composed(const Tensor& features, const Tensor& labels,
                                       double temperature) {
  const char* op = "supervised_contrastive";
  check_features(op, "features", features, "(N, D)", 2);
  check_several(op, "features", features, "for the others are positives and negatives");
  check_index(op, "labels", labels, "features", features);
  check_temperature(op, temperature);
  const Tensor rows = rows_of_scores(features, true);
  // Kinds in order of their labels; as many places as rows, since sizes must not depend on data.
  const auto [sorted, order] = labels.sort();
  const Tensor changes =
      at::cat({at::zeros_like(sorted.narrow(0, 0, 1)), sorted.diff().ne(0).to(at::kLong)})
          .cumsum(0);
  const Tensor kind = at::zeros_like(labels).scatter(0, order, changes);
  const Tensor count = at::zeros_like(labels).index_add(0, kind, at::ones_like(labels));
  // The sum of a row's scores with its kind is one product with the kind's sum of rows.
  const Tensor wide = rows.to(contrastive_sums_type(rows.scalar_type()));
  const Tensor sums = at::zeros_like(wide).index_add(0, kind, wide);
  const Tensor positives = count.index_select(0, kind) - 1;
  const Tensor scores = dot_rows(wide, sums.index_select(0, kind) - wide) / temperature;
  const Tensor has_some = positives.gt(0);
  if (has_data_at_hand(labels)) {
    TILEWRIGHT_CHECK(op, has_some.any().item<bool>(),
                     "labels must hold a label twice at least: no example has a positive");
  }
  const Tensor lse = contrastive_lse_self(rows, 1 / temperature);
  const Tensor losses = lse - scores / positives.clamp_min(1);
  return total(losses.masked_fill(has_some.logical_not(), 0)) / has_some.sum();
}

Tensor local_global_infomax_composed(const Tensor& whole, const Tensor& local, double temperature) {
  const char* op = "local_global_infomax";
  check_features(op, "whole", whole, "(N, D)", 2);
  check_several(op, "whole", whole, "for the other examples are the negatives");
  check_features(op, "local", local, "(N, L, D)", 3);
  TILEWRIGHT_CHECK(op,
                   local.sym_size(0) == whole.sym_size(0) && local.sym_size(1) > 0 &&
                       local.sym_size(2) == whole.sym_size(1),
                   "local must have shape (", whole.sym_size(0), ", L, ", whole.sym_size(1),
                   "), L > 0, got ", shape_of(local));
  check_dtype_of(op, "local", local, "whole", whole);
  check_same_device(op, "whole", whole, "local", local);
  check_temperature(op, temperature);
  // size(1) would ask for all sizes, and make a dynamic number of examples a constant.
  const int64_t places = local.sym_size(1).guard_int(__FILE__, __LINE__);
  const Tensor q = rows_of_scores(whole, false), k = rows_of_scores(local, false);
  const Tensor first =
      at::arange(c10::Scalar(whole.sym_size(0)), whole.options().dtype(at::kLong)) * places;
  const Tensor others = contrastive_lse(q, k.flatten(0, 1), first, 1 / temperature, places);
  const Tensor own = dot_rows(q.unsqueeze(1), k) / temperature;  // (N, L)
  return mean_of(loss_of_positive(own, others.unsqueeze(1)));
}

}  // namespace

Tensor nt_xent(const Tensor& first, const Tensor& second, double temperature) {
  static const auto op = operator_handle<decltype(nt_xent)>("tilewright::nt_xent");
  return op.call(first, second, temperature);
}

Tensor info_nce(const Tensor& query, const Tensor& key, const OptionalTensor& positive,
                double temperature, bool normalize) {
  static const auto op = operator_handle<decltype(info_nce)>("tilewright::info_nce");
  return op.call(query, key, positive, temperature, normalize);
}

Tensor clip_loss(const Tensor& first, const Tensor& second, double temperature, bool normalize) {
  static const auto op = operator_handle<decltype(clip_loss)>("tilewright::clip_loss");
  return op.call(first, second, temperature, normalize);
}

Tensor supervised_contrastive(const Tensor& features, const Tensor& labels, double temperature) {
  static const auto op =
      operator_handle<decltype(supervised_contrastive)>("tilewright::supervised_contrastive");
  return op.call(features, labels, temperature);
}

Tensor local_global_infomax(const Tensor& whole, const Tensor& local, double temperature) {
  static const auto op =
      operator_handle<decltype(local_global_infomax)>("tilewright::local_global_infomax");
  return op.call(whole, local, temperature);
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  const std::vector<at::Tag> tags{at::Tag::pt2_compliant_tag};
  m.def("nt_xent(Tensor first, Tensor second, float temperature=0.1) -> Tensor", tags);
  m.def(
      "info_nce(Tensor query, Tensor key, Tensor? positive=None, float temperature=0.1, "
      "bool normalize=True) -> Tensor",
      tags);
  m.def(
      "clip_loss(Tensor first, Tensor second, float temperature=0.07, bool normalize=True) -> "
      "Tensor",
      tags);
  m.def("supervised_contrastive(Tensor features, Tensor labels, float temperature=0.1) -> Tensor",
        tags);
  m.def("_score_rows(Tensor rows, bool normalize) -> Tensor", tags);
  m.def("_loss_of_positive(Tensor score, Tensor others) -> Tensor", tags);
  m.def("local_global_infomax(Tensor whole, Tensor local, float temperature=1.0) -> Tensor", tags);
}

TORCH_LIBRARY_IMPL(tilewright, CompositeImplicitAutograd, m) {
  m.impl("nt_xent", &nt_xent_composed);
  m.impl("_score_rows", &score_rows_composed);
  m.impl("_loss_of_positive", &loss_of_positive);
  m.impl("info_nce", &info_nce_composed);
  m.impl("clip_loss", &clip_loss_composed);
  m.impl("supervised_contrastive", &supervised_contrastive_composed);
  m.impl("local_global_infomax", &local_global_infomax_composed);
}

}  // namespace tilewright
