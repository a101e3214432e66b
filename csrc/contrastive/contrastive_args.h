// What contrastive_lse and its backward check and allocate, whatever the device.
#pragma once
#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

#include "tilewright/core/export.h"

namespace tilewright {

using OptionalTensor = std::optional<at::Tensor>;
using ContrastiveSums = std::tuple<at::Tensor, at::Tensor>;   // of rows, of columns
using ContrastiveGrads = std::tuple<at::Tensor, at::Tensor>;  // of query, of key
using ContrastiveNeeds = std::array<bool, 2>;

// Of `_contrastive_lse`: without a key the queries are the keys, and the diagonal is left out.
struct ContrastiveArgs {
  const char* op;
  double scale;
  bool columns;           // log-sum-exps over queries, for each key, as well
  int64_t exclude_count;  // rows that are left out at each place of `exclude` or of the diagonal
  bool diagonal;          // is left out: query i and key j are no pair where i / count == j / count

  ContrastiveArgs(const char* op, const OptionalTensor& key, double scale, bool columns,
                  int64_t exclude_count, bool diagonal)
      : op(op),
        scale(scale),
        columns(columns),
        exclude_count(exclude_count),
        diagonal(diagonal || !key) {}
};

// One dtype, or one that autocast makes of both.
TILEWRIGHT_API void check_dtype_of(const char* op, const char* name, const at::Tensor& tensor,
                                   const char* other_name, const at::Tensor& other);
// (M, D) beside a query (N, D) that was checked.
TILEWRIGHT_API void check_key(const char* op, const at::Tensor& query, const at::Tensor& key);
// (N,) int64 beside N rows.
TILEWRIGHT_API void check_index(const char* op, const char* name, const at::Tensor& index,
                                const char* rows_name, const at::Tensor& rows);
// Indices of `rows`, where a look at them is free.
TILEWRIGHT_API void check_rows_of(const char* op, const char* name, const at::Tensor& index,
                                  const char* rows_name, const at::Tensor& rows);
TILEWRIGHT_API void check_contrastive(const ContrastiveArgs& args, const at::Tensor& query,
                                      const OptionalTensor& key, const OptionalTensor& exclude);
TILEWRIGHT_API void check_contrastive_backward(const ContrastiveArgs& args,
                                               const ContrastiveSums& grads,
                                               const at::Tensor& query, const OptionalTensor& key,
                                               const OptionalTensor& exclude,
                                               const ContrastiveSums& sums);
// In the type that sums of `dtype` are kept in.
TILEWRIGHT_API at::ScalarType contrastive_sums_type(at::ScalarType dtype);
// In the type that products of a tensor are made in: its own or autocast's.
TILEWRIGHT_API at::ScalarType contrastive_products_type(const at::Tensor& tensor);
TILEWRIGHT_API at::Tensor in_products_type(const at::Tensor& tensor);
TILEWRIGHT_API ContrastiveSums contrastive_output(const ContrastiveArgs& args,
                                                  const at::Tensor& query,
                                                  const OptionalTensor& key);
// Of no elements where they are not needed.
TILEWRIGHT_API ContrastiveGrads contrastive_grads(const at::Tensor& query,
                                                  const OptionalTensor& key,
                                                  const ContrastiveNeeds& needs);
// Data that only the CPU looks at: throws where exclude names no key.
void check_exclude(const ContrastiveArgs& args, const at::Tensor& exclude, int64_t keys);

}  // namespace tilewright
