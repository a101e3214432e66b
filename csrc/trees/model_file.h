// Fitted models in files: named tensors behind a kind and a version.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "tilewright/core/export.h"
#include "tilewright/trees/tree_arrays.h"

namespace tilewright::trees {

// A file is eight bytes of magic, the kind, the version and, to its end, fields: name, dtype, shape
// and values, little endian. Numbers are tensors without dimensions, texts are bytes. Nothing in a
// file says how much memory to take beyond what its own bytes fill, and what it says is checked: an
// error names the file and the field.
class TILEWRIGHT_API ModelFile {
 public:
  // `op` begins errors and is the kind of model that the file holds.
  ModelFile(std::string op, int64_t version) : op_(std::move(op)), version_(version) {}
  // Reads a file of that kind and version.
  static ModelFile read(const std::string& op, int64_t version, const std::string& path);
  void write(const std::string& path) const;

  // float32, float64, int32, int64, uint8 or bool; undefined tensors are left out.
  void put(const std::string& name, const at::Tensor& value);
  void put(const std::string& name, const std::string& text);
  template <class T>
  std::enable_if_t<std::is_arithmetic_v<T>> put(const std::string& name, T value) {
    put_numbers(name, std::vector<Stored<T>>{Stored<T>(value)}, 0);
  }
  template <class T>
  void put(const std::string& name, const std::vector<T>& values) {
    put_numbers(name, std::vector<Stored<T>>(values.begin(), values.end()), 1);
  }

  bool has(const std::string& name) const { return fields_.count(name) > 0; }
  int64_t dim(const std::string& name) const { return has(name) ? fields_.at(name).dim() : -1; }
  // A field that is not there, or of another dtype or number of dimensions, is an error.
  at::Tensor tensor(const std::string& name, at::ScalarType type, int64_t dim) const;
  // Whole numbers in [least, most].
  int64_t whole(const std::string& name, int64_t least, int64_t most) const;
  void get(const std::string& name, std::string& text) const;
  template <class T>
  std::enable_if_t<std::is_arithmetic_v<T>> get(const std::string& name, T& value) const {
    value = cast<T>(name, numbers<Stored<T>>(name, 0)[0]);
  }
  template <class T>
  void get(const std::string& name, std::vector<T>& values) const {
    values.clear();
    for (const auto v : numbers<Stored<T>>(name, 1)) values.push_back(cast<T>(name, v));
  }
  // An error about a field of this file.
  [[noreturn]] void fail(const std::string& name, const std::string& what) const;
  // What `make` makes of the fields; its errors are those of the file.
  template <class Make>
  auto made(const Make& make) const {
    try {
      return make();
    } catch (const c10::Error& error) {
      fail("holds no model:", error.what_without_backtrace());
    }
  }

 private:
  // Whole numbers as int64, others as float64.
  template <class T>
  using Stored = std::conditional_t<std::is_floating_point_v<T>, double, int64_t>;
  template <class S>
  void put_numbers(const std::string& name, const std::vector<S>& values, int64_t dim);
  template <class S>
  std::vector<S> numbers(const std::string& name, int64_t dim) const;
  template <class T>
  T cast(const std::string& name, Stored<T> value) const {
    if constexpr (std::is_integral_v<T>) {
      if (value < int64_t(std::numeric_limits<T>::min()) ||
          value > int64_t(std::numeric_limits<T>::max())) {
        fail(name, "is out of range: " + std::to_string(value));
      }
    }
    return T(value);
  }

  std::string op_, path_;
  int64_t version_;
  std::map<std::string, at::Tensor> fields_;
};

// The arrays of an ensemble, gains and covers too. Whether they are trees is TreeEnsemble's to say.
void put_arrays(ModelFile& file, const EnsembleArrays& arrays);
EnsembleArrays get_arrays(const ModelFile& file, int64_t num_outputs);

// Options by name (for_each_option). Those that a file lacks keep their values.
std::string option_field(const char* name);
template <class Options>
void put_options(ModelFile& file, const Options& options) {
  for_each_option(
      options, [&](const char* name, const auto& field) { file.put(option_field(name), field); });
}
template <class Options>
Options get_options(const ModelFile& file) {
  Options options;
  for_each_option(options, [&](const char* name, auto& field) {
    if (file.has(option_field(name))) file.get(option_field(name), field);
  });
  return options;
}

}  // namespace tilewright::trees
