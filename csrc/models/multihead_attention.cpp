// The projections and masks around attention.
#include "tilewright/models/multihead_attention.h"

#include <torch/nn/functional/linear.h>
#include <torch/nn/init.h>

#include <cmath>
#include <limits>
#include <vector>

#include "tilewright/attention/flash_attention.h"
#include "tilewright/core/check.h"

namespace tilewright {
namespace {

using torch::Tensor;

constexpr const char* kOp = "MultiheadAttention";
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// Boolean masks as they are, floating ones (0, or what is added) as they are; else an error.
void check_mask(const char* name, const Tensor& mask) {
  TILEWRIGHT_CHECK(kOp, mask.scalar_type() == at::kBool || mask.is_floating_point(), name,
                   " must be boolean or floating, got ", mask.scalar_type());
}

// 0, and -inf where a boolean mask hides a key.
Tensor additive(const Tensor& mask, const torch::TensorOptions& options) {
  if (mask.scalar_type() != at::kBool) return mask;
  return torch::zeros(mask.sizes(), options).masked_fill_(mask, -kInfinity);
}

// A mask of both kinds of hiding.
Tensor join(const Tensor& a, const Tensor& b) {
  if (a.scalar_type() == at::kBool && b.scalar_type() == at::kBool) return a.logical_or(b);
  const auto type = a.scalar_type() == at::kBool ? b.scalar_type() : a.scalar_type();
  const auto options = a.options().dtype(type).requires_grad(false);
  return additive(a, options) + additive(b, options);
}

// Output and probabilities, as torch computes them where the matrix is asked for.
std::tuple<Tensor, Tensor> attend(const Tensor& q, const Tensor& k, const Tensor& v,
                                  const Tensor& mask, double dropout) {
  Tensor s = torch::matmul(q * std::sqrt(1.0 / double(q.size(-1))), k.transpose(-2, -1));
  Tensor empty;  // queries that see no key
  if (mask.defined()) {
    s = mask.scalar_type() == at::kBool ? s.masked_fill(mask, -kInfinity)
                                        : s + mask.to(s.scalar_type());
    empty = (s == -kInfinity).all(-1, /*keepdim=*/true);
    s = s.masked_fill(empty, 0);
  }
  Tensor weights = torch::softmax(s, -1);
  if (empty.defined()) weights = weights.masked_fill(empty, 0);
  if (dropout > 0) weights = torch::dropout(weights, dropout, /*train=*/true);
  return {torch::matmul(weights.to(v.scalar_type()), v), weights};
}

}  // namespace

MultiheadAttentionImpl::MultiheadAttentionImpl(const MultiheadAttentionOptions& options)
    : options_(options) {
  const int64_t width = options_.embed_dim();
  TILEWRIGHT_CHECK(kOp, width > 0 && options_.num_heads() > 0 && width % options_.num_heads() == 0,
                   "embed_dim must be a positive multiple of num_heads, got ", width, " and ",
                   options_.num_heads());
  TILEWRIGHT_CHECK(kOp, width / options_.num_heads() <= 256,
                   "embed_dim / num_heads must be at most 256, got ", width, " / ",
                   options_.num_heads());
  TILEWRIGHT_CHECK(kOp, options_.dropout() >= 0 && options_.dropout() < 1,
                   "dropout must lie in [0, 1), got ", options_.dropout());
  if (options_.kdim() == 0) options_.kdim(width);
  if (options_.vdim() == 0) options_.vdim(width);
  reset();
}

void MultiheadAttentionImpl::reset() {
  namespace init = torch::nn::init;
  const int64_t width = options_.embed_dim();
  if (options_.kdim() == width && options_.vdim() == width) {
    in_proj_weight = register_parameter("in_proj_weight", torch::empty({3 * width, width}));
    init::xavier_uniform_(in_proj_weight);
  } else {
    q_proj_weight = register_parameter("q_proj_weight", torch::empty({width, width}));
    k_proj_weight = register_parameter("k_proj_weight", torch::empty({width, options_.kdim()}));
    v_proj_weight = register_parameter("v_proj_weight", torch::empty({width, options_.vdim()}));
    for (auto* weight : {&q_proj_weight, &k_proj_weight, &v_proj_weight}) {
      init::xavier_uniform_(*weight);
    }
  }
  if (options_.bias()) in_proj_bias = register_parameter("in_proj_bias", torch::zeros(3 * width));
  if (options_.add_bias_kv()) {
    bias_k = register_parameter("bias_k", torch::empty({1, 1, width}));
    bias_v = register_parameter("bias_v", torch::empty({1, 1, width}));
    init::xavier_normal_(bias_k);
    init::xavier_normal_(bias_v);
  }
  out_proj = register_module(
      "out_proj", torch::nn::Linear(torch::nn::LinearOptions(width, width).bias(options_.bias())));
  if (options_.bias()) init::zeros_(out_proj->bias);
}

void MultiheadAttentionImpl::pretty_print(std::ostream& stream) const {
  stream << "tilewright::MultiheadAttention(embed_dim=" << options_.embed_dim()
         << ", num_heads=" << options_.num_heads() << ", dropout=" << options_.dropout() << ')';
}

// Inputs (N, L, E); the results' heads are views into the projections.
MultiheadAttentionImpl::Projected MultiheadAttentionImpl::project(const Tensor& query,
                                                                  const Tensor& key,
                                                                  const Tensor& value) const {
  const auto linear = torch::nn::functional::linear;
  const int64_t width = options_.embed_dim();
  Tensor q, k, v;
  if (in_proj_weight.defined() && query.is_same(key) && key.is_same(value)) {
    const auto all = linear(query, in_proj_weight, in_proj_bias).split(width, -1);
    q = all[0], k = all[1], v = all[2];
  } else {
    const auto weights = in_proj_weight.defined()
                             ? in_proj_weight.split(width)
                             : std::vector<Tensor>{q_proj_weight, k_proj_weight, v_proj_weight};
    const auto biases = in_proj_bias.defined() ? in_proj_bias.split(width) : std::vector<Tensor>(3);
    q = linear(query, weights[0], biases[0]);
    k = linear(key, weights[1], biases[1]);
    v = linear(value, weights[2], biases[2]);
  }
  const int64_t batch = query.size(0);
  if (bias_k.defined()) {
    k = torch::cat({k, bias_k.to(k.scalar_type()).expand({batch, 1, width})}, 1);
    v = torch::cat({v, bias_v.to(v.scalar_type()).expand({batch, 1, width})}, 1);
  }
  if (options_.add_zero_attn()) {
    k = torch::cat({k, k.new_zeros({batch, 1, width})}, 1);
    v = torch::cat({v, v.new_zeros({batch, 1, width})}, 1);
  }
  const auto heads = [&](const Tensor& x) {
    const std::vector<int64_t> sizes{options_.num_heads(), width / options_.num_heads()};
    return x.unflatten(-1, sizes).transpose(1, 2);
  };
  return {heads(q), heads(k), heads(v)};
}

// What hides keys or is added to scores, broadcasting to (N, H, L, S); undefined where nothing
// does.
Tensor MultiheadAttentionImpl::mask_of(const Tensor& key_padding_mask, const Tensor& attn_mask,
                                       const Tensor& ahead, int64_t batch, int64_t queries,
                                       int64_t keys) const {
  const int64_t heads = options_.num_heads();
  Tensor padding, mask;
  if (key_padding_mask.defined()) {
    check_mask("key_padding_mask", key_padding_mask);
    const bool fits = key_padding_mask.sizes() == at::IntArrayRef({batch, keys}) ||
                      (batch == 1 && key_padding_mask.sizes() == at::IntArrayRef({keys}));
    TILEWRIGHT_CHECK(kOp, fits, "key_padding_mask must have shape (", batch, ", ", keys, "), got ",
                     shape_of(key_padding_mask));
    padding = key_padding_mask.reshape({batch, 1, 1, keys});
  }
  if (attn_mask.defined()) {
    check_mask("attn_mask", attn_mask);
    const bool fits = attn_mask.sizes() == at::IntArrayRef({queries, keys}) ||
                      attn_mask.sizes() == at::IntArrayRef({batch * heads, queries, keys});
    TILEWRIGHT_CHECK(kOp, fits, "attn_mask must have shape (", queries, ", ", keys, ") or (",
                     batch * heads, ", ", queries, ", ", keys, "), got ", shape_of(attn_mask));
    mask = attn_mask.dim() == 2 ? attn_mask.reshape({1, 1, queries, keys})
                                : attn_mask.reshape({batch, heads, queries, keys});
  }
  if (ahead.defined()) {
    mask = mask.defined() ? join(mask, ahead) : ahead.reshape({1, 1, queries, keys});
  }
  if (padding.defined() && mask.defined()) mask = join(mask, padding);
  if (!mask.defined()) mask = padding;
  const int64_t more = int64_t(bias_k.defined()) + int64_t(options_.add_zero_attn());
  if (mask.defined() && more > 0) mask = torch::constant_pad_nd(mask, {0, more}, 0);
  return mask;
}

std::tuple<Tensor, Tensor> MultiheadAttentionImpl::forward(
    const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& key_padding_mask,
    bool need_weights, const Tensor& attn_mask, bool average_attn_weights, bool is_causal) {
  const bool batched = query.dim() == 3;
  TILEWRIGHT_CHECK(kOp, batched || query.dim() == 2, "query must have 2 or 3 dimensions, got ",
                   shape_of(query));
  TILEWRIGHT_CHECK(kOp, key.dim() == query.dim() && value.dim() == query.dim(),
                   "key and value must have as many dimensions as query, got ", shape_of(key),
                   " and ", shape_of(value));
  const auto batch_first = [&](const Tensor& x) {
    return !batched ? x.unsqueeze(0) : options_.batch_first() ? x : x.transpose(0, 1);
  };
  const Tensor q_in = batch_first(query);
  const Tensor k_in = key.is_same(query) ? q_in : batch_first(key);
  const Tensor v_in = value.is_same(key) ? k_in : batch_first(value);
  const int64_t batch = q_in.size(0), queries = q_in.size(1), keys = k_in.size(1);
  const auto check = [&](const char* name, const Tensor& x, int64_t length, int64_t features) {
    TILEWRIGHT_CHECK(kOp, x.size(0) == batch && x.size(1) == length && x.size(2) == features, name,
                     " must have batch ", batch, ", length ", length, " and ", features,
                     " features, got ", x.size(0), ", ", x.size(1), " and ", x.size(2));
  };
  check("query", q_in, queries, options_.embed_dim());
  check("key", k_in, keys, options_.kdim());
  check("value", v_in, keys, options_.vdim());
  Tensor ahead;
  const bool more_keys = bias_k.defined() || options_.add_zero_attn();
  // The keys added behind all others are seen by every query, so there a mask is needed.
  const bool by_flag = is_causal && !need_weights && !more_keys;
  if (is_causal && !by_flag) {
    ahead = torch::ones({queries, keys}, query.options().dtype(at::kBool)).triu(1);
  }
  Tensor mask = mask_of(key_padding_mask, attn_mask, ahead, batch, queries, keys);
  const auto [q, k, v] = project(q_in, k_in, v_in);
  const double dropout = is_training() ? options_.dropout() : 0;
  Tensor out, weights;  // (N, H, L, E / H), (N, H, L, S)
  if (need_weights) {
    std::tie(out, weights) = attend(q, k, v, mask, dropout);
    if (average_attn_weights) weights = weights.mean(1);
    if (!batched) weights = weights.squeeze(0);
  } else {
    std::optional<Tensor> bias;
    if (mask.defined()) {
      bias = mask.scalar_type() == at::kBool    ? mask.logical_not()
             : mask.scalar_type() == at::kFloat ? mask
                                                : mask.to(q.scalar_type());
    }
    out = std::get<0>(flash_attention(q, k, v, bias, std::nullopt, std::nullopt, by_flag,
                                      /*top_left=*/true, -1, -1, std::nullopt, 0, dropout));
  }
  out = out_proj->forward(out.transpose(1, 2).flatten(2));  // (N, L, E)
  if (!batched) return {out.squeeze(0), weights};
  return {options_.batch_first() ? out : out.transpose(0, 1), weights};
}

}  // namespace tilewright
