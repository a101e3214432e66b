// What a positive is worth beside the others: losses of pairs without the difference of two sums.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/softplus.h>

namespace tilewright {

// log(1 + e^x), to the digits of float64: ATen's own limit takes x in its place from 20 on.
inline at::Tensor softplus_of(const at::Tensor& x) { return at::softplus(x, 1, /*threshold=*/40); }

// log(e^score + e^others) - score, `others` being a log-sum-exp without the positive: as softplus
// it keeps the digits of losses next to 0 and of their gradients.
inline at::Tensor loss_of_positive(const at::Tensor& score, const at::Tensor& others) {
  return softplus_of(others - score);
}

}  // namespace tilewright
