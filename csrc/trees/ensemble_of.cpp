#include "tilewright/trees/ensemble_of.h"

#include <vector>

namespace tilewright::trees {

c10::intrusive_ptr<TreeEnsemble> ensemble_of(const EnsembleArrays& a, const at::Tensor& base_score,
                                             const std::string& link, int64_t features) {
  std::vector<at::Tensor> arrays{a.feature, a.threshold, a.left,        a.right,   a.default_left,
                                 a.value,   a.tree_ptr,  a.tree_output, base_score};
  if (a.category_ptr.defined()) arrays.insert(arrays.end(), {a.category_ptr, a.categories});
  return c10::make_intrusive<TreeEnsemble>(arrays, link, features);
}

EnsembleArrays arrays_of(const TreeEnsemble& ensemble) {
  const std::vector<at::Tensor> a = ensemble.arrays();
  EnsembleArrays out{a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7]};
  out.num_outputs = ensemble.num_outputs();
  if (a.size() > 9) {
    out.category_ptr = a[9];
    out.categories = a[10];
  }
  return out;
}

}  // namespace tilewright::trees
