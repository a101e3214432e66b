// A small causal transformer over the bytes of a text. sample.py has the same model, with the same
// parameter names, in Python.
#pragma once
#include <tilewright/attention/flash_attention.h>
#include <torch/torch.h>

#include <string>
#include <tuple>
#include <vector>

constexpr int64_t kVocabulary = 256;  // bytes
constexpr int64_t kContext = 128;
constexpr int64_t kHeadSize = 32;

class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(int64_t width, double dropout) : dropout_(dropout) {
    attention_norm = register_module("attention_norm", torch::nn::LayerNorm(norm(width)));
    qkv = register_module("qkv", torch::nn::Linear(width, 3 * width));
    merge = register_module("merge", torch::nn::Linear(width, width));
    mlp_norm = register_module("mlp_norm", torch::nn::LayerNorm(norm(width)));
    up = register_module("up", torch::nn::Linear(width, 4 * width));
    down = register_module("down", torch::nn::Linear(4 * width, width));
  }

  torch::Tensor forward(torch::Tensor x) {  // (B, S, width)
    // Views of one projection: (B, S, 3, H, D) to three of (B, H, S, D), and nothing is copied.
    const auto heads =
        qkv->forward(attention_norm->forward(x)).unflatten(-1, {3, -1, kHeadSize}).unbind(2);
    const auto out = std::get<0>(tilewright::flash_attention(
        heads[0].transpose(1, 2), heads[1].transpose(1, 2), heads[2].transpose(1, 2),
        /*bias=*/{}, /*alibi_slopes=*/{}, /*sinks=*/{}, /*causal=*/true, /*top_left=*/false,
        /*window_left=*/-1, /*window_right=*/-1, /*scale=*/{}, /*softcap=*/0,
        /*dropout_p=*/is_training() ? dropout_ : 0));
    x = x + drop(merge->forward(out.transpose(1, 2).flatten(2)));
    return x + drop(down->forward(torch::gelu(up->forward(mlp_norm->forward(x)))));
  }

 private:
  static torch::nn::LayerNormOptions norm(int64_t width) {
    return torch::nn::LayerNormOptions({width});
  }
  torch::Tensor drop(const torch::Tensor& x) { return torch::dropout(x, dropout_, is_training()); }

  double dropout_;
  torch::nn::LayerNorm attention_norm = nullptr, mlp_norm = nullptr;
  torch::nn::Linear qkv = nullptr, merge = nullptr, up = nullptr, down = nullptr;
};
TORCH_MODULE(Block);

class TextModelImpl : public torch::nn::Module {
 public:
  explicit TextModelImpl(int64_t width = 128, int64_t layers = 3, double dropout = 0.1) {
    bytes = register_module("bytes", torch::nn::Embedding(kVocabulary, width));
    places = register_module("places", torch::nn::Embedding(kContext, width));
    auto list = register_module("blocks", torch::nn::ModuleList());
    for (int64_t i = 0; i < layers; ++i) {
      blocks.push_back(Block(width, dropout));
      list->push_back(blocks.back());
    }
    norm = register_module("norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})));
    head = register_module("head", torch::nn::Linear(width, kVocabulary));
    torch::NoGradGuard no_grad;
    bytes->weight.mul_(0.1);
    places->weight.mul_(0.1);
  }

  // text: (B, S) bytes as int64, S <= kContext. Returns the scores of the byte behind each,
  // (B, S, 256).
  torch::Tensor forward(const torch::Tensor& text) {
    auto x = bytes->forward(text) + places->forward(torch::arange(text.size(1), text.options()));
    for (auto& block : blocks) x = block->forward(x);
    return head->forward(norm->forward(x));
  }

 private:
  torch::nn::Embedding bytes = nullptr, places = nullptr;
  std::vector<Block> blocks;
  torch::nn::LayerNorm norm = nullptr;
  torch::nn::Linear head = nullptr;
};
TORCH_MODULE(TextModel);
