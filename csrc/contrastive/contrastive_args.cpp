// Checks and allocations of contrastive_lse: what does not depend on the device.
#include "tilewright/contrastive/contrastive_args.h"

#include <ATen/autocast_mode.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/core/data_at_hand.h"
#include "tilewright/core/log2.h"

namespace tilewright {
namespace {

void check_sums(const char* op, const char* name, const at::Tensor& sums, const char* size_name,
                const c10::SymInt& size, const at::Tensor& query) {
  check_given(op, name, sums);
  TILEWRIGHT_CHECK(op, sums.dim() == 1 && sums.sym_size(0) == size, name, " must have shape (",
                   size_name, ",) = (", size, ",), got ", shape_of(sums));
  const auto type = contrastive_sums_type(query.scalar_type());
  TILEWRIGHT_CHECK(op, sums.scalar_type() == type, name, " must be ", type, ", got ",
                   sums.scalar_type());
  check_same_device(op, "query", query, name, sums);
}

}  // namespace

void check_dtype_of(const char* op, const char* name, const at::Tensor& tensor,
                    const char* other_name, const at::Tensor& other) {
  TILEWRIGHT_CHECK(op, contrastive_products_type(tensor) == contrastive_products_type(other), name,
                   " must have ", other_name, "'s dtype (", other.scalar_type(), "), got ",
                   tensor.scalar_type());
}

void check_key(const char* op, const at::Tensor& query, const at::Tensor& key) {
  check_given(op, "key", key);
  TILEWRIGHT_CHECK(op, key.dim() == 2 && key.sym_size(1) == query.sym_size(1),
                   "key must have shape (M, ", query.sym_size(1), "), got ", shape_of(key));
  check_dtype_of(op, "key", key, "query", query);
  check_same_device(op, "query", query, "key", key);
}

void check_index(const char* op, const char* name, const at::Tensor& index, const char* rows_name,
                 const at::Tensor& rows) {
  check_given(op, name, index);
  TILEWRIGHT_CHECK(op, index.dim() == 1 && index.sym_size(0) == rows.sym_size(0), name,
                   " must have shape (N,) = (", rows.sym_size(0), ",), got ", shape_of(index));
  TILEWRIGHT_CHECK(op, index.scalar_type() == at::kLong, name, " must be int64, got ",
                   index.scalar_type());
  check_same_device(op, rows_name, rows, name, index);
}

void check_rows_of(const char* op, const char* name, const at::Tensor& index, const char* rows_name,
                   const at::Tensor& rows) {
  if (!has_data_at_hand(index) || index.numel() == 0) return;
  const auto [least, most] = at::aminmax(index);
  const auto low = least.item<int64_t>(), high = most.item<int64_t>();
  TILEWRIGHT_CHECK(op, low >= 0 && high < rows.size(0), name, " must lie in [0, ", rows.size(0),
                   "), the rows of ", rows_name, ", got ", low, " to ", high);
}

void check_contrastive(const ContrastiveArgs& args, const at::Tensor& query,
                       const OptionalTensor& key, const OptionalTensor& exclude) {
  const char* op = args.op;
  check_floating(op, "query", query);
  check_shape(op, "query", query, "(N, D)", 2);
  TILEWRIGHT_CHECK(op, query.sym_size(1) > 0, "query must have features, got ", shape_of(query));
  const double powers = args.scale * kLog2E;  // as the kernels hold it
  const bool wide = query.scalar_type() == at::kDouble;
  TILEWRIGHT_CHECK(op, std::isfinite(wide ? powers : double(float(powers))), "scale must be finite",
                   wide ? "" : " in float32", ", got ", args.scale);
  TILEWRIGHT_CHECK(op, args.exclude_count >= 1, "exclude_count must be positive, got ",
                   args.exclude_count);
  TILEWRIGHT_CHECK(op, key || !args.columns, "columns need keys that are not the queries");
  if (key) check_key(op, query, *key);
  if (!exclude) return;
  TILEWRIGHT_CHECK(op, key, "exclude needs keys that are not the queries");
  TILEWRIGHT_CHECK(op, !args.columns && !args.diagonal,
                   "exclude must be None where there are columns or a diagonal");
  check_index(op, "exclude", *exclude, "query", query);
}

void check_contrastive_backward(const ContrastiveArgs& args, const ContrastiveSums& grads,
                                const at::Tensor& query, const OptionalTensor& key,
                                const OptionalTensor& exclude, const ContrastiveSums& sums) {
  check_contrastive(args, query, key, exclude);
  const auto rows = query.sym_size(0), columns = key ? key->sym_size(0) : rows;
  check_sums(args.op, "rows", std::get<0>(sums), "N", rows, query);
  check_sums(args.op, "grad_rows", std::get<0>(grads), "N", rows, query);
  if (!args.columns) return;
  check_sums(args.op, "columns", std::get<1>(sums), "M", columns, query);
  check_sums(args.op, "grad_columns", std::get<1>(grads), "M", columns, query);
}

at::ScalarType contrastive_sums_type(at::ScalarType dtype) {
  return dtype == at::kDouble ? at::kDouble : at::kFloat;
}

at::ScalarType contrastive_products_type(const at::Tensor& tensor) {
  const auto device = tensor.device().type();
  const auto type = tensor.scalar_type();
  const bool casts = at::autocast::is_autocast_available(device) &&
                     at::autocast::is_autocast_enabled(device) && tensor.is_floating_point() &&
                     type != at::kDouble;
  return casts ? at::autocast::get_autocast_dtype(device) : type;
}

at::Tensor in_products_type(const at::Tensor& tensor) {
  return tensor.to(contrastive_products_type(tensor));
}

ContrastiveSums contrastive_output(const ContrastiveArgs& args, const at::Tensor& query,
                                   const OptionalTensor& key) {
  const auto options = query.options().dtype(contrastive_sums_type(query.scalar_type()));
  const c10::SymInt columns = args.columns ? (key ? *key : query).sym_size(0) : c10::SymInt(0);
  return {at::empty_symint({query.sym_size(0)}, options), at::empty_symint({columns}, options)};
}

ContrastiveGrads contrastive_grads(const at::Tensor& query, const OptionalTensor& key,
                                   const ContrastiveNeeds& needs) {
  const auto like = [&](bool needed, const at::Tensor& tensor) {
    const auto options = tensor.options().memory_format(std::nullopt);
    return needed ? at::empty_symint(tensor.sym_sizes(), options) : at::empty({0}, options);
  };
  return {like(needs[0], query), like(needs[1] && key, key ? *key : query)};
}

void check_exclude(const ContrastiveArgs& args, const at::Tensor& given, int64_t keys) {
  TILEWRIGHT_CHECK(args.op, keys == 0 || args.exclude_count <= keys,
                   "exclude_count must be at most the number of keys (", keys, "), got ",
                   args.exclude_count);
  const at::Tensor exclude = given.contiguous();
  const int64_t* first = exclude.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < exclude.size(0); ++i) {
    TILEWRIGHT_CHECK(args.op,
                     first[i] == -1 || (first[i] >= 0 && first[i] <= keys - args.exclude_count),
                     "exclude[", i, "] must be -1 or lie in [0, ", keys - args.exclude_count + 1,
                     "), got ", first[i]);
  }
}

}  // namespace tilewright
