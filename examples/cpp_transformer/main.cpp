// Trains a character-level transformer on text files: plain LibTorch and tilewright's attention,
// with dropout and bfloat16 autocast.
//
//   cpp_transformer train weights.pt 400 docs/*.md
//   cpp_transformer logits weights.pt "some text"
//
// The first prints the loss as it falls and writes the weights, from which sample.py writes text.
// The second prints the 256 scores of the byte behind the text, to compare with Python's.
#include <ATen/autocast_mode.h>
#include <tilewright/models/state.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iomanip>
#include <iostream>
#include <iterator>
#include <limits>
#include <stdexcept>
#include <string>

#include "model.h"

namespace {

constexpr int64_t kBatch = 16;
constexpr double kLearningRate = 2e-3;
constexpr double kPi = 3.14159265358979323846;

// bfloat16 autocast while it lives.
class Autocast {
 public:
  Autocast() {
    at::autocast::set_autocast_dtype(at::kCPU, at::kBFloat16);
    at::autocast::set_autocast_enabled(at::kCPU, true);
  }
  ~Autocast() {
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(at::kCPU, false);
  }
  Autocast(const Autocast&) = delete;
  Autocast& operator=(const Autocast&) = delete;
};

torch::Tensor as_bytes(std::string text) {  // (length,) int64
  return torch::from_blob(text.data(), {int64_t(text.size())}, torch::kUInt8).to(torch::kLong);
}

std::string read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error(path + ": cannot be opened");
  return {std::istreambuf_iterator<char>(file), {}};
}

// kBatch pieces of kContext + 1 bytes, at random places.
torch::Tensor pieces(const torch::Tensor& text) {
  const auto starts = torch::randint(text.size(0) - kContext, {kBatch, 1}, torch::kLong);
  return text.index({starts + torch::arange(kContext + 1)});
}

torch::Tensor loss_of(TextModel& model, const torch::Tensor& pieces) {
  const auto scores = model->forward(pieces.slice(1, 0, kContext));
  return torch::nn::functional::cross_entropy(scores.flatten(0, 1).to(torch::kFloat),
                                              pieces.slice(1, 1).flatten());
}

double loss_without_dropout(TextModel& model, const torch::Tensor& text) {
  torch::NoGradGuard no_grad;
  model->eval();
  torch::manual_seed(1);
  double sum = 0;
  for (int i = 0; i < 8; ++i) sum += loss_of(model, pieces(text)).item<double>() / 8;
  model->train();
  return sum;
}

void train(const std::string& path, int64_t steps, const std::string& text) {
  if (int64_t(text.size()) < 20 * kContext) {
    throw std::runtime_error("the text has " + std::to_string(text.size()) + " bytes, of " +
                             std::to_string(20 * kContext) + " that are needed");
  }
  const auto all = as_bytes(text);
  const int64_t kept = all.size(0) * 9 / 10;  // the rest is never trained on
  const auto seen = all.slice(0, 0, kept), unseen = all.slice(0, kept);
  torch::manual_seed(0);
  TextModel model;
  torch::optim::AdamW optimizer(model->parameters(),
                                torch::optim::AdamWOptions(kLearningRate).weight_decay(0.01));
  std::cout << "text of " << kept << " bytes; unseen text: loss "
            << loss_without_dropout(model, unseen) << '\n';
  torch::manual_seed(2);
  double mean = 0;  // of the last steps
  const int64_t shown = std::max<int64_t>(steps / 10, 1);
  for (int64_t step = 1; step <= steps; ++step) {
    const double warm = std::min(1.0, double(step) / 20);
    const double cosine = 0.5 + 0.5 * std::cos(kPi * double(step) / double(steps));
    for (auto& group : optimizer.param_groups()) {
      static_cast<torch::optim::AdamWOptions&>(group.options()).lr(kLearningRate * warm * cosine);
    }
    torch::Tensor loss;
    {
      Autocast bfloat16;
      loss = loss_of(model, pieces(seen));
    }
    optimizer.zero_grad();
    loss.backward();
    torch::nn::utils::clip_grad_norm_(model->parameters(), 1.0);
    optimizer.step();
    mean += loss.item<double>() / double(shown);
    if (step % shown == 0) {
      std::cout << "step " << step << ": loss " << mean << std::endl;
      mean = 0;
    }
  }
  std::cout << "unseen text: loss " << loss_without_dropout(model, unseen) << '\n';
  tilewright::save_module(*model, path);
}

void print_scores(const std::string& path, const std::string& text) {
  if (text.empty() || int64_t(text.size()) > kContext) {
    throw std::runtime_error("the text must have 1 to " + std::to_string(kContext) + " bytes");
  }
  torch::NoGradGuard no_grad;
  TextModel model;
  tilewright::load_module(*model, path);
  model->eval();
  const auto scores = model->forward(as_bytes(text).unsqueeze(0))[0][-1].contiguous();
  std::cout << std::setprecision(std::numeric_limits<float>::max_digits10);
  for (int64_t i = 0; i < kVocabulary; ++i) std::cout << scores.data_ptr<float>()[i] << '\n';
}

int64_t steps_of(const std::string& word) {
  const bool digits = !word.empty() && word.find_first_not_of("0123456789") == std::string::npos;
  const int64_t steps = digits && word.size() < 10 ? std::stoll(word) : 0;
  if (steps < 1) throw std::runtime_error("steps must be a number from 1 on, got " + word);
  return steps;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string command = argc > 1 ? argv[1] : "";
  try {
    if (command == "train" && argc >= 5) {
      std::string text;
      for (int i = 4; i < argc; ++i) text += read(argv[i]);
      train(argv[2], steps_of(argv[3]), text);
    } else if (command == "logits" && argc == 4) {
      print_scores(argv[2], argv[3]);
    } else {
      std::cerr << "usage: cpp_transformer train weights.pt steps text.md [more.md ...]\n"
                << "       cpp_transformer logits weights.pt \"some text\"\n";
      return 2;
    }
  } catch (const c10::Error& error) {
    std::cerr << "cpp_transformer: " << error.what_without_backtrace() << '\n';
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "cpp_transformer: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
