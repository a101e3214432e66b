// Python's view of the C++ MultiheadAttention.
#include <torch/extension.h>

#include "tilewright/models/multihead_attention.h"
#include "tilewright/python/bind.h"
#include "tilewright/python/module_interface.h"

namespace tilewright {
namespace {

using Model = MultiheadAttentionImpl;
using OptionalTensor = std::optional<torch::Tensor>;

std::shared_ptr<Model> make(int64_t embed_dim, int64_t num_heads, double dropout, bool bias,
                            bool add_bias_kv, bool add_zero_attn, std::optional<int64_t> kdim,
                            std::optional<int64_t> vdim, bool batch_first) {
  return std::make_shared<Model>(MultiheadAttentionOptions(embed_dim, num_heads)
                                     .dropout(dropout)
                                     .bias(bias)
                                     .add_bias_kv(add_bias_kv)
                                     .add_zero_attn(add_zero_attn)
                                     .kdim(kdim.value_or(0))
                                     .vdim(vdim.value_or(0))
                                     .batch_first(batch_first));
}

std::tuple<torch::Tensor, OptionalTensor> forward(
    Model& model, const torch::Tensor& query, const torch::Tensor& key, const torch::Tensor& value,
    const OptionalTensor& key_padding_mask, bool need_weights, const OptionalTensor& attn_mask,
    bool average_attn_weights, bool is_causal) {
  py::gil_scoped_release no_gil;
  auto [out, weights] =
      model.forward(query, key, value, key_padding_mask.value_or(torch::Tensor()), need_weights,
                    attn_mask.value_or(torch::Tensor()), average_attn_weights, is_causal);
  return {out, weights.defined() ? OptionalTensor(weights) : std::nullopt};
}

}  // namespace

void bind_attention(py::module_& m) {
  py::class_<Model, std::shared_ptr<Model>> model(
      m, "MultiheadAttention",
      "torch.nn.MultiheadAttention over flash_attention, implemented in C++ "
      "(tilewright/models/multihead_attention.h).");
  model.def(py::init(&make), py::arg("embed_dim"), py::arg("num_heads"), py::arg("dropout") = 0.0,
            py::arg("bias") = true, py::arg("add_bias_kv") = false,
            py::arg("add_zero_attn") = false, py::arg("kdim") = py::none(),
            py::arg("vdim") = py::none(), py::arg("batch_first") = false);
  for (const char* name : {"forward", "__call__"}) {
    model.def(name, &forward, py::arg("query"), py::arg("key"), py::arg("value"),
              py::arg("key_padding_mask") = py::none(), py::arg("need_weights") = true,
              py::arg("attn_mask") = py::none(), py::arg("average_attn_weights") = true,
              py::arg("is_causal") = false);
  }
  bind_module_interface(model);
}

}  // namespace tilewright
