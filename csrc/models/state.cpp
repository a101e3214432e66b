// Collecting, checking and copying of named tensors.
#include "tilewright/models/state.h"

#include <torch/serialize/output-archive.h>

#include <algorithm>
#include <string_view>
#include <vector>

#include "tilewright/core/check.h"
#include "tilewright/models/checkpoint.h"

namespace tilewright {
namespace {

constexpr size_t kShownOfAKind = 10;

void collect(const torch::nn::Module& module, const std::string& prefix, StateDict& out) {
  for (const auto& item : module.named_parameters(/*recurse=*/false)) {
    out.insert(prefix + item.key(), item.value().detach());
  }
  for (const auto& item : module.named_buffers(/*recurse=*/false)) {
    out.insert(prefix + item.key(), item.value().detach());
  }
  for (const auto& child : module.named_children()) {
    collect(*child.value(), prefix + child.key() + ".", out);
  }
}

// Batch norm's step counter, which frozen batch norm does not have.
bool is_counter(const std::string& key) {
  constexpr std::string_view kCounter = "num_batches_tracked";
  return key.size() >= kCounter.size() &&
         key.compare(key.size() - kCounter.size(), kCounter.size(), kCounter) == 0;
}

// Problems of one kind, the first ones in words.
void append(std::string& text, const std::vector<std::string>& problems) {
  for (size_t i = 0; i < std::min(problems.size(), kShownOfAKind); ++i) {
    text += (text.empty() ? "" : "; ") + problems[i];
  }
  if (problems.size() > kShownOfAKind) {
    text += "; and " + std::to_string(problems.size() - kShownOfAKind) + " more like this";
  }
}

}  // namespace

StateDict state_dict(const torch::nn::Module& module) {
  StateDict out;
  collect(module, "", out);
  return out;
}

void check_state_dict(const StateDict& own, const StateDict& state, const std::string& source,
                      bool strict) {
  std::vector<std::string> missing, unexpected, unfit;
  for (const auto& item : own) {
    const auto* given = state.find(item.key());
    if (given == nullptr) {
      if (!is_counter(item.key())) missing.push_back("key " + item.key() + " is missing");
    } else if (given->sizes() != item.value().sizes()) {
      unfit.push_back(item.key() + " must have shape " + shape_of(item.value()) + ", got " +
                      shape_of(*given));
    } else if (given->is_meta() && !item.value().is_meta()) {
      unfit.push_back(item.key() + " must hold numbers, got a meta tensor");
    }
  }
  for (const auto& item : state) {
    if (!own.contains(item.key()) && !is_counter(item.key())) {
      unexpected.push_back("key " + item.key() + " is not in the model");
    }
  }
  std::string text;
  append(text, unfit);
  if (strict) append(text, missing);
  if (strict) append(text, unexpected);
  TILEWRIGHT_CHECK("load_state_dict", text.empty(), source, ": ", text);
}

void load_state_dict(torch::nn::Module& module, const StateDict& state, const std::string& source) {
  const auto own = state_dict(module);
  check_state_dict(own, state, source);
  torch::NoGradGuard no_grad;
  for (const auto& item : own) {
    if (const auto* given = state.find(item.key())) item.value().copy_(*given);
  }
}

void save_module(const torch::nn::Module& module, const std::string& path) {
  torch::serialize::OutputArchive archive;
  module.save(archive);
  try {
    archive.save_to(path);
  } catch (const c10::Error& error) {
    TILEWRIGHT_CHECK("save_module", false, "cannot write ", path, ": ",
                     error.what_without_backtrace());
  }
}

void load_module(torch::nn::Module& module, const std::string& path) {
  load_state_dict(module, read_checkpoint(path, "load_module"), path);
}

}  // namespace tilewright
