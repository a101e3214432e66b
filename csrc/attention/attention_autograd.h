// What the autograd functions of attention, dense and packed, have in common.
#pragma once
#include <torch/csrc/autograd/custom_function.h>

#include "tilewright/attention/attention_calls.h"
#include "tilewright/core/optional_tensor.h"

namespace tilewright {

inline void save_args(torch::autograd::AutogradContext* ctx, const AttentionArgs& args) {
  auto& data = ctx->saved_data;
  data["causal"] = args.causal;
  data["top_left"] = args.top_left;
  data["window_left"] = args.window_left;
  data["window_right"] = args.window_right;
  data["scale"] = args.scale;
  data["softcap"] = args.softcap;
  data["dropout_p"] = args.dropout_p;
}

inline AttentionArgs saved_args(const char* op, const torch::autograd::AutogradContext* ctx) {
  const auto& data = ctx->saved_data;
  return {op,
          data.at("causal").toBool(),
          data.at("top_left").toBool(),
          data.at("window_left").toInt(),
          data.at("window_right").toInt(),
          data.at("scale").toOptional<double>(),
          data.at("softcap").toDouble(),
          data.at("dropout_p").toDouble()};
}

}  // namespace tilewright
