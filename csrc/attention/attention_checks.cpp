// The checks that attention's operators share.
#include "tilewright/attention/attention_checks.h"

#include <cmath>

namespace tilewright {
namespace {

constexpr int64_t kMaxHeadDim = 256;

void check_head_dim(const char* op, const char* name, const at::Tensor& tensor) {
  const auto size = tensor.sym_size(-1);
  TILEWRIGHT_CHECK(op, size >= 1 && size <= kMaxHeadDim, "the last dimension of ", name,
                   " must lie in [1, ", kMaxHeadDim, "], got ", shape_of(tensor));
}

}  // namespace

bool has_sizes(const at::Tensor& tensor, std::initializer_list<c10::SymInt> sizes) {
  if (tensor.dim() != int64_t(sizes.size())) return false;
  int64_t dim = 0;
  for (const auto& size : sizes) {
    if (tensor.sym_size(dim++) != size) return false;
  }
  return true;
}

void check_sizes(const char* op, const char* name, const at::Tensor& tensor, const char* wording,
                 std::initializer_list<c10::SymInt> sizes) {
  TILEWRIGHT_CHECK(op, has_sizes(tensor, sizes), name, " must have shape ", wording, " = ",
                   shape_of(sizes), ", got ", shape_of(tensor));
}

void check_dtype(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType dtype) {
  const auto name_of = [](at::ScalarType type) { return c10::getDtypeNames(type).first; };
  TILEWRIGHT_CHECK(op, tensor.scalar_type() == dtype, name, " must be ", name_of(dtype), ", got ",
                   name_of(tensor.scalar_type()));
}

void check_options(const AttentionArgs& args) {
  const char* op = args.op;
  // Written so that NaN fails them.
  TILEWRIGHT_CHECK(op, args.dropout_p >= 0 && args.dropout_p < 1,
                   "dropout_p must lie in [0, 1), got ", args.dropout_p);
  TILEWRIGHT_CHECK(op, args.softcap >= 0 && std::isfinite(args.softcap),
                   "softcap must be finite and not negative (0: none), got ", args.softcap);
  TILEWRIGHT_CHECK(op, !args.scale || std::isfinite(*args.scale), "scale must be finite, got ",
                   args.scale.value_or(0));
  TILEWRIGHT_CHECK(op, args.window_left >= -1, "window_left must be -1 (unlimited) or more, got ",
                   args.window_left);
  TILEWRIGHT_CHECK(op, args.window_right >= -1, "window_right must be -1 (unlimited) or more, got ",
                   args.window_right);
}

void check_beside(const char* op, const char* first_name, const at::Tensor& first, const char* name,
                  const at::Tensor& tensor) {
  TILEWRIGHT_CHECK(op, tensor.scalar_type() == first.scalar_type(), name,
                   " must have the dtype of ", first_name, " (", first.scalar_type(), "), got ",
                   tensor.scalar_type());
  check_same_device(op, first_name, first, name, tensor);
}

void check_heads(const char* op, const at::Tensor& query, int64_t query_dim, const char* key_name,
                 const at::Tensor& key, int64_t key_dim) {
  const auto heads = query.sym_size(query_dim), key_heads = key.sym_size(key_dim);
  TILEWRIGHT_CHECK(op, key_heads == 0 ? heads == 0 : heads % key_heads == 0, "the heads of query (",
                   heads, ") must be a multiple of the heads of ", key_name, " (", key_heads, ")");
}

void check_inputs(const char* op, const at::Tensor& query, const char* key_name,
                  const at::Tensor& key, const char* value_name, const at::Tensor& value) {
  check_floating(op, "query", query);
  check_beside(op, "query", query, key_name, key);
  check_beside(op, "query", query, value_name, value);
  check_head_dim(op, "query", query);
  check_head_dim(op, value_name, value);
  TILEWRIGHT_CHECK(op, key.sym_size(-1) == query.sym_size(-1), "the last dimension of ", key_name,
                   " must be that of query, ", query.sym_size(-1), ", got ", shape_of(key));
}

void check_rng_state(const char* op, const at::Tensor& query, const at::Tensor& rng_state) {
  if (!rng_state.defined()) return;
  check_dtype(op, "rng_state", rng_state, at::kLong);
  check_shape(op, "rng_state", rng_state, "(2,)", 1, 2);
  TILEWRIGHT_CHECK(op, rng_state.device() == query.device(),
                   "rng_state must be on the device of query (", query.device(), "), got ",
                   rng_state.device(), "; move it with rng_state.to(query.device)");
}

void check_slopes(const char* op, const at::Tensor& query, const at::Tensor& slopes,
                  const c10::SymInt& batch, const c10::SymInt& heads) {
  if (!slopes.defined()) return;
  TILEWRIGHT_CHECK(op, has_sizes(slopes, {heads}) || has_sizes(slopes, {batch, heads}),
                   "alibi_slopes must have shape (H,) = ", shape_of({heads}),
                   " or (B, H) = ", shape_of({batch, heads}), ", got ", shape_of(slopes));
  check_floating(op, "alibi_slopes", slopes);
  check_same_device(op, "query", query, "alibi_slopes", slopes);
}

}  // namespace tilewright
