#include "tilewright/trees/grow_tree_args.h"

#include <ATen/ops/aminmax.h>
#include <ATen/ops/empty.h>

#include <cmath>

#include "tilewright/core/check.h"
#include "tilewright/trees/tree_grower.h"

namespace tilewright {
namespace {

// An array of `like`'s device with `size` entries.
void check_array(const char* op, const char* name, const at::Tensor& tensor, at::ScalarType type,
                 const c10::SymInt& size, const at::Tensor& like) {
  check_given(op, name, tensor);
  TILEWRIGHT_CHECK(op, tensor.scalar_type() == type, name, " must be ", type, ", got ",
                   tensor.scalar_type());
  check_same_device(op, "codes", like, name, tensor);
  TILEWRIGHT_CHECK(op, tensor.dim() == 1 && tensor.sym_size(0) == size, name, " must have shape (",
                   size, ",), got ", shape_of(tensor));
}

void check_tables(const char* op, const at::Tensor& codes, const at::Tensor& gradients,
                  const at::Tensor& hessians, int64_t num_codes) {
  check_given(op, "codes", codes);
  const auto type = codes.scalar_type();
  TILEWRIGHT_CHECK(op, type == at::kByte || type == at::kShort,
                   "codes must be uint8 or int16, got ", type);
  check_shape(op, "codes", codes, "(N, F)", 2);
  TILEWRIGHT_CHECK(op, codes.sym_size(0) < (int64_t(1) << 31) - 64,
                   "codes may have at most 2^31 rows, got ", codes.sym_size(0));
  if (type == at::kByte) {
    TILEWRIGHT_CHECK(op, num_codes == 256, "uint8 codes have num_codes 256, got ", num_codes);
  } else {
    TILEWRIGHT_CHECK(op, num_codes >= 2 && num_codes <= 32768,
                     "num_codes must lie in [2, 32768], got ", num_codes);
  }
  check_floating(op, "gradients", gradients);
  const auto rows = codes.sym_size(0);
  check_array(op, "gradients", gradients, gradients.scalar_type(), rows, codes);
  check_array(op, "hessians", hessians, gradients.scalar_type(), rows, codes);
}

void check_rule(const char* name, double value) {
  TILEWRIGHT_CHECK("grow_tree", value >= 0 && value < HUGE_VAL, name,
                   " must be finite and not negative, got ", value);
}

}  // namespace

void check_tree_histogram(const at::Tensor& codes, const at::Tensor& gradients,
                          const at::Tensor& hessians, const std::optional<at::Tensor>& node,
                          int64_t num_nodes, int64_t num_codes) {
  constexpr const char* kOp = "tree_histogram";
  check_tables(kOp, codes, gradients, hessians, num_codes);
  TILEWRIGHT_CHECK(kOp, num_nodes >= 1 && num_nodes < (int64_t(1) << 31) - 1,
                   "num_nodes must lie in [1, 2^31 - 1), got ", num_nodes);
  if (node.has_value()) check_array(kOp, "node", *node, at::kInt, codes.sym_size(0), codes);
}

void check_grow_tree(const GrowTreeArgs& a) {
  constexpr const char* kOp = "grow_tree";
  check_tables(kOp, a.codes, a.gradients, a.hessians, a.num_codes);
  const auto features = a.codes.sym_size(1);
  check_array(kOp, "bins", a.bins, at::kInt, features, a.codes);
  TILEWRIGHT_CHECK(kOp, a.max_depth >= 1 && a.max_depth <= kMostTreeDepth,
                   "max_depth must lie in [1, ", kMostTreeDepth, "], got ", a.max_depth);
  check_rule("reg_lambda", a.rules.lambda);
  check_rule("reg_alpha", a.rules.alpha);
  check_rule("gamma", a.rules.gamma);
  check_rule("min_child_weight", a.rules.min_child_weight);
  check_rule("max_delta_step", a.rules.max_delta_step);
  if (a.rows.has_value()) {
    check_array(kOp, "rows", *a.rows, at::kBool, a.codes.sym_size(0), a.codes);
  }
  if (a.columns.has_value()) check_array(kOp, "columns", *a.columns, at::kBool, features, a.codes);
  if (a.monotone.has_value()) {
    check_array(kOp, "monotone", *a.monotone, at::kChar, features, a.codes);
  }
}

void check_codes_exist(const char* op, const at::Tensor& codes, int64_t num_codes) {
  if (codes.scalar_type() == at::kByte || codes.numel() == 0) return;
  const auto [least, most] = at::aminmax(codes);
  const auto low = least.item<int16_t>(), high = most.item<int16_t>();
  TILEWRIGHT_CHECK(op, low >= 0 && high < num_codes, "codes must lie in [0, ", num_codes, "), got ",
                   low < 0 ? low : high);
}

bool tree_uses_pairs(int64_t rows) { return rows <= kFewTreeRows; }

at::Tensor tree_values(const at::Tensor& values) {
  const at::Tensor plain = values.detach();
  return (plain.scalar_type() == at::kDouble ? plain : plain.to(at::kFloat)).contiguous();
}

GrowTreeResult empty_grow_tree(const GrowTreeArgs& a) {
  const int64_t nodes = (int64_t(2) << a.max_depth) - 1;
  const auto options = a.codes.options();
  const auto reals = options.dtype(at::kDouble);
  return {at::empty({nodes}, options.dtype(at::kInt)),
          at::empty({nodes}, options.dtype(at::kInt)),
          at::empty({nodes}, options.dtype(at::kBool)),
          at::empty({nodes}, reals),
          at::empty({nodes}, reals),
          at::empty({nodes}, reals),
          at::empty_symint({a.codes.sym_size(0)}, options.dtype(at::kInt))};
}

}  // namespace tilewright
