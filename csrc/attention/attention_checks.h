// The checks that attention's operators share: one wording for one mistake.
#pragma once
#include <initializer_list>
#include <string>

#include "tilewright/attention/attention_args.h"
#include "tilewright/core/check.h"

namespace tilewright {

bool has_sizes(const at::Tensor& tensor, std::initializer_list<c10::SymInt> sizes);

// `wording` says what the sizes are: "(B, H, Sq)".
void check_sizes(const char* op, const char* name, const at::Tensor& tensor, const char* wording,
                 std::initializer_list<c10::SymInt> sizes);
void check_dtype(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType dtype);
// `name` must have the dtype and the device of a tensor that is there.
void check_beside(const char* op, const char* first_name, const at::Tensor& first, const char* name,
                  const at::Tensor& tensor);
void check_options(const AttentionArgs& args);
// Query, key and value apart from their shapes in front.
void check_inputs(const char* op, const at::Tensor& query, const char* key_name,
                  const at::Tensor& key, const char* value_name, const at::Tensor& value);
void check_heads(const char* op, const at::Tensor& query, int64_t query_dim, const char* key_name,
                 const at::Tensor& key, int64_t key_dim);
// Where given.
void check_rng_state(const char* op, const at::Tensor& query, const at::Tensor& rng_state);
void check_slopes(const char* op, const at::Tensor& query, const at::Tensor& slopes,
                  const c10::SymInt& batch, const c10::SymInt& heads);

}  // namespace tilewright
