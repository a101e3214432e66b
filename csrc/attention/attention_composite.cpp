// Attention composed of ATen operators. No masked score enters an operation whose derivative could
// be 0 * inf, so derivatives of any order are free of NaN.
#include "tilewright/attention/attention_composite.h"

#include <ATen/ATen.h>

#include <cmath>
#include <vector>

namespace tilewright {
namespace {

constexpr int64_t kWord = 0xffffffff;  // the bits of a 32-bit word in an int64

// 64-bit products wrap, so their low 64 bits are those of the unsigned product.
std::array<at::Tensor, 4> philox_words(at::Tensor c0, at::Tensor c1, at::Tensor c2, at::Tensor c3,
                                       const at::Tensor& seed) {
  const auto high = [](const at::Tensor& product) { return product.__rshift__(32) & kWord; };
  at::Tensor key0 = seed & kWord, key1 = high(seed);
  for (int round = 0; round < 10; ++round) {
    const at::Tensor product0 = c0 * int64_t(0xD2511F53), product1 = c2 * int64_t(0xCD9E8D57);
    c0 = high(product1) ^ c1 ^ key0;
    c2 = high(product0) ^ c3 ^ key1;
    c1 = product1 & kWord;
    c3 = product0 & kWord;
    key0 = (key0 + int64_t(0x9E3779B9)) & kWord;
    key1 = (key1 + int64_t(0xBB67AE85)) & kWord;
  }
  return {c0, c1, c2, c3};
}

// The scores' terms that depend on places alone, for one call.
struct Places {
  int64_t batch, heads, q_len, k_len;
  at::TensorOptions index;  // int64 on query's device

  at::Tensor queries() const { return at::arange(q_len, index).unsqueeze(1); }  // (Sq, 1)
  at::Tensor keys() const { return at::arange(k_len, index); }                  // (Sk,)
};

// Which probabilities dropout keeps (AttentionDropout): (B, H, Sq, Sk).
at::Tensor kept_by_dropout(const Places& at_places, double dropout_p, const at::Tensor& rng_state,
                           int64_t first_batch) {
  const auto& [batch, heads, q_len, k_len, index] = at_places;
  const int64_t blocks = (k_len + 63) / 64;  // of 64 keys, 16 counters, four words
  const at::Tensor head =
      (at::arange(batch * heads, index) + first_batch * heads).view({batch, heads, 1, 1, 1});
  const auto words =
      philox_words(at::arange(blocks * 16, index).view({blocks, 16}),
                   at_places.queries().unsqueeze(2), head, rng_state[1] & kWord, rng_state[0]);
  const std::vector<int64_t> shape{batch, heads, q_len, blocks, 16};
  const at::Tensor bits = at::stack({words[0].expand(shape), words[1].expand(shape),
                                     words[2].expand(shape), words[3].expand(shape)},
                                    4);  // (B, H, Sq, blocks, 4, 16): the order of keys
  return bits.reshape({batch, heads, q_len, blocks * 64})
      .slice(3, 0, k_len)
      .ge(int64_t(dropout_threshold(dropout_p)));
}

// Which keys a query may see: (..., Sq, Sk), undefined where all.
at::Tensor seen_keys(const AttentionWindow& window, const Places& places, const at::Tensor& bias) {
  at::Tensor seen;
  if (window.limited()) {
    const at::Tensor center = places.queries() + window.offset(places.q_len, places.k_len);
    const at::Tensor key = places.keys();
    seen = at::ones({places.q_len, places.k_len}, places.index.dtype(at::kBool));
    if (window.causal) seen = seen & (key <= center);
    if (window.left >= 0) seen = seen & (key >= center - window.left);
    if (window.right >= 0) seen = seen & (key <= center + window.right);
  }
  if (bias.defined()) {
    const at::Tensor open = bias.scalar_type() == at::kBool ? bias : bias.detach() != -HUGE_VAL;
    seen = seen.defined() ? seen & open : open;
  }
  return seen;
}

// (B, Hk, Sk, D) -> (B, H, Sk, D), in the type of sums.
at::Tensor for_query_heads(const at::Tensor& tensor, int64_t heads, at::ScalarType type) {
  const auto key_heads = std::max<int64_t>(tensor.size(1), 1);
  return tensor.to(type)
      .unsqueeze(2)
      .expand({-1, -1, heads / key_heads, -1, -1})
      .reshape({tensor.size(0), heads, tensor.size(2), tensor.size(3)});
}

}  // namespace

TensorPair attention_composite(const AttentionArgs& args, const at::Tensor& query,
                               const at::Tensor& key, const at::Tensor& value,
                               const AttentionExtras& extras, int64_t first_batch) {
  const auto type = accumulate_dtype(query.scalar_type());
  const Places places{query.size(0), query.size(1), query.size(2), key.size(2),
                      query.options().dtype(at::kLong)};
  const auto& [batch, heads, q_len, k_len, index] = places;
  const AttentionWindow window = args.window();

  at::Tensor seen = seen_keys(window, places, extras.bias);
  if (!seen.defined()) seen = at::ones({1, 1}, index.dtype(at::kBool));
  seen = seen.expand({batch, heads, q_len, k_len});
  // What no query sees may be NaN, and must not meet a 0.
  const at::Tensor used = seen.any(2).unsqueeze(3);  // (B, H, Sk, 1)
  const at::Tensor k = at::where(used, for_query_heads(key, heads, type), 0);
  const at::Tensor v = at::where(used, for_query_heads(value, heads, type), 0);

  at::Tensor s = at::matmul(query.to(type), k.transpose(2, 3)) * scale_of(args, query.size(3));
  if (args.softcap > 0) s = args.softcap * at::tanh(s / args.softcap);
  if (extras.alibi_slopes.defined()) {
    const at::Tensor distance =
        (places.queries() + window.offset(q_len, k_len) - places.keys()).abs().to(type);
    s = s - extras.alibi_slopes.to(type).unsqueeze(-1).unsqueeze(-1) * distance;
  }
  if (extras.bias.defined() && extras.bias.scalar_type() != at::kBool) s = s + extras.bias.to(type);

  // The maximum only scales: results do not depend on it, so it is a constant to autograd.
  at::Tensor sinks = at::full({1, 1, 1, 1}, -HUGE_VAL, query.options().dtype(type));
  if (extras.sinks.defined()) sinks = extras.sinks.to(type).view({1, heads, 1, 1});
  at::Tensor max = at::cat({at::where(seen, s.detach(), -HUGE_VAL),
                            sinks.detach().expand({batch, heads, q_len, 1})},
                           3)
                       .amax(3, /*keepdim=*/true);
  max = at::where(max == -HUGE_VAL, 0, max);
  const at::Tensor e = at::where(seen, at::exp(at::where(seen, s - max, 0)), 0);
  at::Tensor sum = e.sum(3, /*keepdim=*/true);
  if (extras.sinks.defined()) sum = sum + at::exp(sinks - max);
  const at::Tensor alive = sum.detach() != 0;
  const at::Tensor divisor = at::where(alive, sum, 1);
  const at::Tensor lse = at::where(alive, max + at::log(divisor), -HUGE_VAL).squeeze(3);
  at::Tensor p = e / divisor;
  if (args.dropout_p > 0) {
    const at::Tensor kept = kept_by_dropout(places, args.dropout_p, extras.rng_state, first_batch);
    p = at::where(kept, p / (1 - args.dropout_p), 0);
  }
  return {at::matmul(p, v).to(query.scalar_type()), lse};
}

}  // namespace tilewright
