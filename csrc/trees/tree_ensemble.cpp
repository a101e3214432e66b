#include "tilewright/trees/tree_ensemble.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include "tilewright/core/check.h"
#include "tilewright/core/on_device.h"
#include "tilewright/trees/ensemble_of.h"
#include "tilewright/trees/input_table.h"
#include "tilewright/trees/link.h"
#include "tilewright/trees/model_file.h"
#include "tilewright/trees/names.h"
#include "tilewright/trees/packed_trees.h"
#include "tilewright/trees/predict_trees.h"

namespace tilewright {
namespace {

constexpr size_t kPlain = 9, kWithCategories = 11;

std::optional<at::Tensor> given(const std::vector<at::Tensor>& arrays, size_t i) {
  return i < arrays.size() ? std::optional<at::Tensor>(arrays[i]) : std::nullopt;
}

// Other versions may have other arrays.
const TreeEnsemble::State& readable(const TreeEnsemble::State& state) {
  TILEWRIGHT_CHECK(kTreeEnsemble, std::get<0>(state) == TreeEnsemble::kVersion, "reads version ",
                   TreeEnsemble::kVersion, " of its files, got ", std::get<0>(state));
  return state;
}

}  // namespace

TreeEnsemble::TreeEnsemble(std::vector<at::Tensor> arrays, std::string link, int64_t num_features)
    : arrays_(std::move(arrays)), link_(std::move(link)), num_features_(num_features) {
  TILEWRIGHT_CHECK(kTreeEnsemble, arrays_.size() == kPlain || arrays_.size() == kWithCategories,
                   "takes 9 arrays, or 11 with categories, got ", arrays_.size());
  TILEWRIGHT_CHECK(kTreeEnsemble, is_link(link_),
                   "link must be identity, sigmoid, softmax or exp, got ", link_);
  TILEWRIGHT_CHECK(kTreeEnsemble, num_features_ >= 1, "num_features must be positive, got ",
                   num_features_);
  const at::Tensor& base = arrays_[8];
  TILEWRIGHT_CHECK(
      kTreeEnsemble, base.dim() == 1 && base.numel() >= 1 && base.scalar_type() == at::kFloat,
      "base_score must be float32 of shape (K,), got ", base.scalar_type(), " ", shape_of(base));
  const auto& a = arrays_;
  const auto category_ptr = given(a, 9), categories = given(a, 10);
  const TreeArrays trees{a[0], a[1], a[2],          a[3],         a[4],      a[5],
                         a[6], a[7], num_outputs(), category_ptr, categories};
  check_predict_trees(at::empty({0, num_features_}, base.options()), trees);
  if (base.is_cpu()) packed_ = std::make_shared<const PackedTrees>(trees, num_features_);
}

TreeEnsemble::TreeEnsemble(const State& state)
    : TreeEnsemble(std::get<1>(readable(state)), std::get<2>(state), std::get<3>(state)) {}

at::Tensor TreeEnsemble::scores(const at::Tensor& x) const {
  TILEWRIGHT_CHECK(kTreeEnsemble, x.dim() == 2 && x.size(1) == num_features_, "x must have ",
                   num_features_, " features, got ", shape_of(x));
  if (x.layout() != at::kStrided) return scores_by_blocks(x);
  if (packed_ != nullptr && !is_on_device(x)) {
    check_floating(kTreeEnsemble, "x", x);
    return packed_->predict(x, arrays_[8].contiguous());
  }
  const std::vector<at::Tensor> a = arrays_on(x.device());
  return predict_trees(x, a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], num_outputs(),
                       given(a, 9), given(a, 10)) +
         a[8];
}

at::Tensor TreeEnsemble::scores_by_blocks(const at::Tensor& x) const {
  const trees::InputTable table("x", x);
  at::Tensor out = at::empty({table.rows(), num_outputs()}, arrays_[8].options());
  table.for_rows([&](int64_t first, const at::Tensor& rows) {
    out.narrow(0, first, rows.size(0)).copy_(scores(rows));
  });
  return out;
}

std::vector<at::Tensor> TreeEnsemble::arrays_on(at::Device device) const {
  if (arrays_[0].device() == device) return arrays_;
  const std::lock_guard<std::mutex> guard(copying_);
  for (const auto& copy : copies_) {
    if (copy[0].device() == device) return copy;
  }
  std::vector<at::Tensor> copy;
  for (const at::Tensor& array : arrays_) copy.push_back(array.to(device));
  copies_.push_back(copy);
  return copy;
}

at::Tensor TreeEnsemble::predict(const at::Tensor& x) const {
  return behind_link(link_, scores(x));
}

void TreeEnsemble::save(const std::string& path) const {
  trees::ModelFile file(kTreeEnsemble, kVersion);
  trees::put_arrays(file, trees::arrays_of(*this));
  file.put("base_score", arrays_[8]);
  file.put("link", link_);
  file.put("num_features", num_features_);
  file.write(path);
}

c10::intrusive_ptr<TreeEnsemble> TreeEnsemble::load(const std::string& path) {
  const auto file = trees::ModelFile::read(kTreeEnsemble, kVersion, path);
  const at::Tensor base_score = file.tensor("base_score", at::kFloat, 1);
  std::string link;
  file.get("link", link);
  const int64_t features = file.whole("num_features", 1, kMostTreeFeatures);
  const trees::EnsembleArrays arrays = trees::get_arrays(file, base_score.numel());
  return file.made([&] { return trees::ensemble_of(arrays, base_score, link, features); });
}

TORCH_LIBRARY_FRAGMENT(tilewright, m) {
  m.class_<TreeEnsemble>("TreeEnsemble")
      .def(torch::init<std::vector<at::Tensor>, std::string, int64_t>(), "",
           {torch::arg("arrays"), torch::arg("link"), torch::arg("num_features")})
      .def("scores", &TreeEnsemble::scores)
      .def("predict", &TreeEnsemble::predict)
      .def("arrays", &TreeEnsemble::arrays)
      .def("link", &TreeEnsemble::link)
      .def("num_features", &TreeEnsemble::num_features)
      .def("num_outputs", &TreeEnsemble::num_outputs)
      .def_pickle(
          [](const c10::intrusive_ptr<TreeEnsemble>& self) { return self->state(); },
          [](TreeEnsemble::State state) { return c10::make_intrusive<TreeEnsemble>(state); });
}

}  // namespace tilewright
