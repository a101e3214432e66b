// The formats of weight files, told apart by their first bytes and by what the archive holds.
#include "tilewright/models/checkpoint.h"

#include <caffe2/serialize/inline_container.h>
#include <torch/serialize.h>
#include <torch/serialize/input-archive.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>
#include <vector>

#include "tilewright/core/check.h"

namespace tilewright {
namespace {

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

StateDict tensors_of_archive(const std::string& path) {
  torch::serialize::InputArchive archive;
  archive.load_from(path, torch::Device(torch::kCPU));
  StateDict state;
  collect(archive, "", state);
  return state;
}

// LibTorch's unpickler drops the contents of an OrderedDict, at best.
bool holds_ordered_dict(caffe2::serialize::PyTorchStreamReader& archive) {
  constexpr std::string_view kGlobal = "ccollections\nOrderedDict\n";
  constexpr size_t kStart = 2;  // of the first value, after the protocol
  const auto [data, size] = archive.getRecord("data.pkl");
  return size > kStart + kGlobal.size() &&
         std::string_view(static_cast<const char*>(data.get()) + kStart, kGlobal.size()) == kGlobal;
}

std::vector<char> bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

StateDict tensors_of_pickle(const std::string& path, const char* caller) {
  const auto value = torch::pickle_load(bytes_of(path));
  TILEWRIGHT_CHECK(caller, value.isGenericDict(), path, " must hold a dict of tensors, got a ",
                   value.tagKind());
  StateDict state;
  for (const auto& item : value.toGenericDict()) {
    TILEWRIGHT_CHECK(caller, item.key().isString(), path, " must have strings for keys, got a ",
                     item.key().tagKind());
    const auto& key = item.key().toStringRef();
    TILEWRIGHT_CHECK(caller, item.value().isTensor(), path, ": entry ", key,
                     " must be a tensor, got a ", item.value().tagKind(),
                     " (of a checkpoint with more than weights, take the dict of weights)");
    state.insert(key, item.value().toTensor());
  }
  return state;
}

bool starts_with(const std::string& path, std::string_view bytes) {
  std::string start(bytes.size(), '\0');
  std::ifstream(path, std::ios::binary).read(start.data(), static_cast<int64_t>(start.size()));
  return start == bytes;
}

}  // namespace

StateDict read_checkpoint(const std::string& path, const char* caller) {
  TILEWRIGHT_CHECK(caller, std::filesystem::is_regular_file(path), "no file ", path);
  constexpr auto kConvert =
      ": in Python, read it with tilewright.models.read_checkpoint, and torch.save the dict that "
      "gives";
  TILEWRIGHT_CHECK(caller, !starts_with(path, "\x80\x02"), path,
                   " was written by torch.save before 1.6 or by pickle", kConvert);
  TILEWRIGHT_CHECK(caller, starts_with(path, "PK\x03\x04"), path, " is not a torch archive");
  bool is_module = false, is_ordered = false;
  try {
    caffe2::serialize::PyTorchStreamReader archive(path);
    is_module = archive.hasRecord("constants.pkl");  // only archives of modules have constants
    is_ordered = !is_module && holds_ordered_dict(archive);
  } catch (const c10::Error& error) {
    TILEWRIGHT_CHECK(caller, false, path,
                     " is cut short or damaged: ", error.what_without_backtrace());
  }
  TILEWRIGHT_CHECK(caller, !is_ordered, path, " holds an OrderedDict, which LibTorch does not read",
                   kConvert);
  try {
    return is_module ? tensors_of_archive(path) : tensors_of_pickle(path, caller);
  } catch (const c10::Error& error) {
    const std::string reason = error.what_without_backtrace();
    TORCH_CHECK(reason.rfind("tilewright::", 0) != 0, reason);
    // The unpickler asserts on dicts that it dropped.
    const bool asserted = reason.find("INTERNAL ASSERT") != std::string::npos;
    TILEWRIGHT_CHECK(caller, false, path, " cannot be read as weights: ",
                     asserted ? "it must be a plain dict of tensors" : reason);
  }
}

}  // namespace tilewright
