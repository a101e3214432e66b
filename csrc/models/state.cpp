// Collecting, checking and copying of named tensors, and torch archives as their files.
#include "tilewright/models/state.h"

#include <torch/serialize/input-archive.h>
#include <torch/serialize/output-archive.h>

#include <filesystem>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

constexpr int kProblemsShown = 5;

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

void collect(torch::serialize::InputArchive& archive, const std::string& prefix, StateDict& out) {
  for (const auto& key : archive.keys()) {
    torch::Tensor tensor;
    torch::serialize::InputArchive child;
    if (archive.try_read(key, tensor)) {
      out.insert(prefix + key, tensor);
    } else if (archive.try_read(key, child)) {
      collect(child, prefix + key + ".", out);
    }
  }
}

// Batch norm's step counter, which checkpoints with frozen batch norm do not have.
bool may_be_missing(const std::string& key) {
  constexpr std::string_view kCounter = "num_batches_tracked";
  return key.size() >= kCounter.size() &&
         key.compare(key.size() - kCounter.size(), kCounter.size(), kCounter) == 0;
}

}  // namespace

StateDict state_dict(const torch::nn::Module& module) {
  StateDict out;
  collect(module, "", out);
  return out;
}

void load_state_dict(torch::nn::Module& module, const StateDict& state, const std::string& source) {
  const auto own = state_dict(module);
  int problems = 0;
  std::ostringstream text;
  const auto report = [&](const std::string& problem) {
    if (problems++ < kProblemsShown) text << (problems > 1 ? "; " : "") << problem;
  };
  for (const auto& item : own) {
    const auto* given = state.find(item.key());
    if (given == nullptr) {
      if (may_be_missing(item.key())) continue;
      report("key " + item.key() + " is missing");
    } else if (given->sizes() != item.value().sizes()) {
      report(item.key() + " must have shape " + shape_of(item.value()) + ", got " +
             shape_of(*given));
    }
  }
  for (const auto& item : state) {
    if (!own.contains(item.key())) report("key " + item.key() + " is not in the model");
  }
  if (problems > kProblemsShown) text << "; and " << problems - kProblemsShown << " more";
  TILEWRIGHT_CHECK("load_state_dict", problems == 0, source, ": ", text.str());
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
  TILEWRIGHT_CHECK("load_module", std::filesystem::is_regular_file(path), "no file ", path);
  torch::serialize::InputArchive archive;
  try {
    archive.load_from(path, torch::Device(torch::kCPU));
  } catch (const c10::Error& error) {
    TILEWRIGHT_CHECK("load_module", false, path,
                     " is not a torch archive: ", error.what_without_backtrace());
  }
  StateDict state;
  collect(archive, "", state);
  load_state_dict(module, state, path);
}

}  // namespace tilewright
