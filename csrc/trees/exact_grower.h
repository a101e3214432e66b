// Grows one tree after the other from sorted columns: splits lie between any two values.
#pragma once
#include <memory>
#include <vector>

#include "tilewright/trees/exact_columns.h"
#include "tilewright/trees/tree_grower.h"

namespace tilewright {
struct ExactWorkspace;
}

namespace tilewright::trees {

class ExactGrower : public Grower {
 public:
  // `table` must outlive the object.
  explicit ExactGrower(const InputTable& table);
  ~ExactGrower() override;

  GrownTree grow(const at::Tensor& gradients, const at::Tensor& hessians,
                 const std::vector<int32_t>& rows, const TreeOptions& options) override;
  // An error: leaves are numbers.
  GrownTree grow_vectors(const at::Tensor& gradients, const at::Tensor& hessians,
                         const std::vector<int32_t>& rows, const TreeOptions& options) override;
  void answer_quantiles(GrownTree& tree, const float* labels, const float* scores,
                        const float* weights, double alpha, int64_t output) const override;
  void add_to_scores(const GrownTree& tree, const std::vector<float>& values,
                     float* scores) const override;

 private:
  const InputTable& table_;
  const ExactColumns columns_;
  std::unique_ptr<ExactWorkspace> work_;
};

}  // namespace tilewright::trees
