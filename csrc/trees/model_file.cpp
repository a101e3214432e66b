#include "tilewright/trees/model_file.h"

#include <ATen/Functions.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>

#include "tilewright/core/check.h"

namespace tilewright::trees {
namespace {

using at::Tensor;

constexpr char kMagic[8] = {'t', 'w', 'm', 'o', 'd', 'e', 'l', '\n'};
constexpr uint32_t kMostName = 64, kMostDim = 2;
// The codes of dtypes are places in this list. bool is stored as bytes that are 0 or not.
constexpr at::ScalarType kTypes[] = {at::kFloat, at::kDouble, at::kInt,
                                     at::kLong,  at::kByte,   at::kBool};

template <class T>
void append(std::vector<char>& to, T value) {
  const size_t at = to.size();
  to.resize(at + sizeof(T));
  std::memcpy(to.data() + at, &value, sizeof(T));
}

void append(std::vector<char>& to, const std::string& text) {
  append(to, uint32_t(text.size()));
  to.insert(to.end(), text.begin(), text.end());
}

// Takes one thing after the other from bytes; what would lie beyond the end is an error.
class Bytes {
 public:
  Bytes(const std::string& op, const std::string& path, const std::vector<char>& bytes)
      : op_(op), path_(path), bytes_(bytes) {}

  bool empty() const { return at_ == bytes_.size(); }
  template <class T>
  T number(const std::string& what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what), sizeof(T));
    return value;
  }
  std::string text(const std::string& what) {
    const auto size = number<uint32_t>(what);
    if (size > kMostName) fail(what + " has " + std::to_string(size) + " bytes");
    const char* from = take(size, what);
    return {from, from + size};
  }
  const char* take(uint64_t size, const std::string& what) {
    if (size > bytes_.size() - at_) {
      fail("ends within " + what + ", which takes " + std::to_string(size) + " bytes of " +
           std::to_string(bytes_.size() - at_));
    }
    at_ += size;
    return bytes_.data() + at_ - size;
  }
  [[noreturn]] void fail(const std::string& what) const {
    TILEWRIGHT_CHECK(op_, false, path_, ": ", what);
    std::abort();  // not reached
  }

 private:
  const std::string &op_, &path_;
  const std::vector<char>& bytes_;
  size_t at_ = 0;
};

Tensor read_tensor(Bytes& bytes, const std::string& name) {
  const auto code = bytes.number<uint32_t>(name);
  if (code >= std::size(kTypes))
    bytes.fail(name + " has the unknown dtype " + std::to_string(code));
  const at::ScalarType type = kTypes[code];
  const auto dim = bytes.number<uint32_t>(name);
  if (dim > kMostDim) bytes.fail(name + " has " + std::to_string(dim) + " dimensions");
  // No more elements than bytes can follow, so that products do not overflow.
  constexpr int64_t kMostElements = int64_t(1) << 48;
  std::vector<int64_t> shape;
  int64_t elements = 1;
  for (uint32_t i = 0; i < dim; ++i) {
    shape.push_back(bytes.number<int64_t>(name));
    const int64_t size = shape.back();
    if (size < 0 || size > kMostElements / std::max<int64_t>(elements, 1)) {
      bytes.fail(name + " cannot have the size " + std::to_string(size));
    }
    elements *= size;
  }
  const bool flags = type == at::kBool;
  const auto size = uint64_t(elements) * c10::elementSize(type);
  const char* from = bytes.take(size, name);
  Tensor value = at::empty(shape, flags ? at::kByte : type);
  if (size > 0) std::memcpy(value.mutable_data_ptr(), from, size);
  return flags ? value.ne(0) : value;
}

}  // namespace

void ModelFile::put(const std::string& name, const Tensor& value) {
  if (value.defined()) fields_[name] = value.cpu().contiguous();
}

void ModelFile::put(const std::string& name, const std::string& text) {
  Tensor bytes = at::empty({int64_t(text.size())}, at::kByte);
  std::copy(text.begin(), text.end(), static_cast<char*>(bytes.mutable_data_ptr()));
  fields_[name] = bytes;
}

template <class S>
void ModelFile::put_numbers(const std::string& name, const std::vector<S>& values, int64_t dim) {
  Tensor out = at::empty({int64_t(values.size())}, c10::CppTypeToScalarType<S>::value);
  std::copy(values.begin(), values.end(), out.mutable_data_ptr<S>());
  fields_[name] = dim == 0 ? out.squeeze(0) : out;
}

template <class S>
std::vector<S> ModelFile::numbers(const std::string& name, int64_t dim) const {
  const Tensor values = tensor(name, c10::CppTypeToScalarType<S>::value, dim);
  const S* from = values.const_data_ptr<S>();
  return {from, from + values.numel()};
}

template void ModelFile::put_numbers(const std::string&, const std::vector<int64_t>&, int64_t);
template void ModelFile::put_numbers(const std::string&, const std::vector<double>&, int64_t);
template std::vector<int64_t> ModelFile::numbers(const std::string&, int64_t) const;
template std::vector<double> ModelFile::numbers(const std::string&, int64_t) const;

void ModelFile::write(const std::string& path) const {
  std::vector<char> bytes(kMagic, kMagic + sizeof(kMagic));
  append(bytes, op_);
  append(bytes, version_);
  for (const auto& [name, value] : fields_) {
    const auto* type = std::find(std::begin(kTypes), std::end(kTypes), value.scalar_type());
    TILEWRIGHT_CHECK(op_, type != std::end(kTypes) && value.dim() <= kMostDim, "cannot write ",
                     name, ", which is ", value.scalar_type(), " ", shape_of(value));
    append(bytes, name);
    append(bytes, uint32_t(type - std::begin(kTypes)));
    append(bytes, uint32_t(value.dim()));
    for (const int64_t size : value.sizes()) append(bytes, size);
    const auto* from = static_cast<const char*>(value.const_data_ptr());
    bytes.insert(bytes.end(), from, from + value.nbytes());
  }
  const std::string whole = path + ".part";  // a model that is there stays until the new one is
  std::ofstream file(whole, std::ios::binary);
  file.write(bytes.data(), std::streamsize(bytes.size()));
  file.close();
  const bool written = bool(file) && std::rename(whole.c_str(), path.c_str()) == 0;
  if (!written) std::remove(whole.c_str());
  TILEWRIGHT_CHECK(op_, written, "cannot write ", path);
}

ModelFile ModelFile::read(const std::string& op, int64_t version, const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  TILEWRIGHT_CHECK(op, bool(file), "cannot read ", path);
  const std::vector<char> content{std::istreambuf_iterator<char>(file), {}};
  Bytes bytes(op, path, content);
  if (content.size() < sizeof(kMagic) ||
      std::memcmp(bytes.take(sizeof(kMagic), "magic"), kMagic, sizeof(kMagic)) != 0) {
    bytes.fail("is no model of tilewright's");
  }
  const std::string kind = bytes.text("the kind");
  if (kind != op) bytes.fail("must hold a model of kind " + op + ", got " + kind);
  const auto found = bytes.number<int64_t>("the version");
  if (found != version) {
    bytes.fail("version must be " + std::to_string(version) + ", got " + std::to_string(found));
  }
  ModelFile out(op, version);
  out.path_ = path;
  while (!bytes.empty()) {
    const std::string name = bytes.text("the name of a field");
    if (!out.fields_.emplace(name, read_tensor(bytes, name)).second) {
      bytes.fail(name + " is there twice");
    }
  }
  return out;
}

void ModelFile::fail(const std::string& name, const std::string& what) const {
  TILEWRIGHT_CHECK(op_, false, path_, ": ", name, " ", what);
  std::abort();  // not reached
}

Tensor ModelFile::tensor(const std::string& name, at::ScalarType type, int64_t dim) const {
  const auto at = fields_.find(name);
  if (at == fields_.end()) fail(name, "is missing");
  const Tensor& value = at->second;
  if (value.scalar_type() != type || value.dim() != dim) {
    fail(name, c10::str("must be ", type, " of ", dim, " dimensions, got ", value.scalar_type(),
                        " ", shape_of(value)));
  }
  return value;
}

int64_t ModelFile::whole(const std::string& name, int64_t least, int64_t most) const {
  const int64_t value = numbers<int64_t>(name, 0)[0];
  if (value < least || value > most) {
    fail(name, c10::str("must lie in [", least, ", ", most, "], got ", value));
  }
  return value;
}

void ModelFile::get(const std::string& name, std::string& text) const {
  const Tensor bytes = tensor(name, at::kByte, 1);
  const auto* from = static_cast<const char*>(bytes.const_data_ptr());
  text.assign(from, from + bytes.numel());
}

std::string option_field(const char* name) { return std::string("option ") + name; }

void put_arrays(ModelFile& file, const EnsembleArrays& a) {
  file.put("feature", a.feature);
  file.put("threshold", a.threshold);
  file.put("left", a.left);
  file.put("right", a.right);
  file.put("default_left", a.default_left);
  file.put("value", a.value);
  file.put("tree_ptr", a.tree_ptr);
  file.put("tree_output", a.tree_output);
  file.put("gain", a.gain);
  file.put("cover", a.cover);
  file.put("category_ptr", a.category_ptr);
  file.put("categories", a.categories);
}

EnsembleArrays get_arrays(const ModelFile& file, int64_t num_outputs) {
  EnsembleArrays a;
  a.feature = file.tensor("feature", at::kInt, 1);
  a.threshold = file.tensor("threshold", at::kFloat, 1);
  a.left = file.tensor("left", at::kInt, 1);
  a.right = file.tensor("right", at::kInt, 1);
  a.default_left = file.tensor("default_left", at::kBool, 1);
  a.value = file.tensor("value", at::kFloat, file.dim("value") == 2 ? 2 : 1);
  a.tree_ptr = file.tensor("tree_ptr", at::kLong, 1);
  a.tree_output = file.tensor("tree_output", at::kInt, 1);
  for (const auto& [name, own] : {std::pair{"gain", &a.gain}, std::pair{"cover", &a.cover}}) {
    if (!file.has(name)) continue;
    *own = file.tensor(name, at::kFloat, 1);
    if (own->numel() != a.feature.numel()) {
      file.fail(name, "must be as long as feature, " + std::to_string(a.feature.numel()));
    }
  }
  if (file.has("category_ptr") || file.has("categories")) {
    a.category_ptr = file.tensor("category_ptr", at::kLong, 1);
    a.categories = file.tensor("categories", at::kInt, 1);
  }
  a.num_outputs = num_outputs;
  return a;
}

}  // namespace tilewright::trees
