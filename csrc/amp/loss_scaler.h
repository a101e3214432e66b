// The loss scaler for C++ programs: torch.amp.GradScaler's interface on torch::optim's optimizers,
// which LibTorch does not have, without its traps (arXiv:1710.03740).
//
//   tilewright::LossScaler scaler;
//   optimizer.zero_grad();
//   scaler.scale(loss).backward();
//   scaler.unscale_and_clip_(optimizer, 1.0);   // or unscale_(optimizer), or nothing
//   scaler.step(optimizer);
//   scaler.update();
#pragma once
#include <torch/optim/optimizer.h>
#include <torch/serialize/archive.h>

#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "tilewright/amp/loss_scale.h"
#include "tilewright/core/export.h"

namespace tilewright {

// The scale is at its floor, and gradients are still inf or NaN.
class TILEWRIGHT_API LossScaleError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class TILEWRIGHT_API LossScaler {
 public:
  // found_inf: (1,) float32, to be made the greatest of all ranks': with c10d
  //   [group](at::Tensor found_inf) {
  //     std::vector<at::Tensor> tensors{found_inf};
  //     group->allreduce(tensors, {.reduceOp = c10d::ReduceOp::MAX})->wait();
  //   }
  using Share = std::function<void(at::Tensor found_inf)>;

  explicit LossScaler(const LossScaleOptions& options = {}, Share share = nullptr);
  LossScaler(LossScaler&&) = default;
  LossScaler& operator=(LossScaler&&) = default;

  // loss times the scale, which lies where the first loss does.
  at::Tensor scale(const at::Tensor& loss) { return scale_.scaled(loss); }
  std::vector<at::Tensor> scale(at::TensorList losses);

  // Divides the gradients of the optimizer's parameters by the scale, in place, once before each
  // step; sparse ones are coalesced. Errors: a second time since update(), or after step().
  void unscale_(torch::optim::Optimizer& optimizer);
  // And makes the 2-norm of all of them at most max_norm. Returns it as it was, one number; finding
  // it takes no pass of its own. A fused optimizer clips within its step. A norm beyond its dtype
  // counts as infinite gradients do.
  at::Tensor unscale_and_clip_(torch::optim::Optimizer& optimizer, double max_norm);

  // The optimizer's step, unless a gradient is inf or NaN; unscales before where that was not done.
  // What the step returns, or an undefined tensor where it was left out. A fused optimizer's step
  // waits for no answer of the device, and leaves itself out there.
  // closure: scales its loss and calls backward(), and unscales nothing; it returns the loss
  // without the scale. Where a gradient is inf or NaN in any of its calls, the parameters and the
  // optimizer's state go back to what they were.
  // Errors: a second time since update(); LossScaleError, which names the parameter, at the floor:
  // update() comes next all the same. An optimizer lives at least until update().
  at::Tensor step(torch::optim::Optimizer& optimizer,
                  torch::optim::Optimizer::LossClosure closure = nullptr);

  // The next scale: by what was found since the last update, or `scale`.
  void update(std::optional<double> scale = std::nullopt);

  // Waits for the device. LossScaleError where an update found inf or NaN at the floor.
  double get_scale();

  LossScaleState state() const { return scale_.state(); }
  void load(const LossScaleState& state) { scale_.load(state); }
  // In a program's archives: options are not written.
  void save(torch::serialize::OutputArchive& archive) const;
  void load(torch::serialize::InputArchive& archive);

 private:
  enum class Stage { kReady, kUnscaled, kStepped };
  struct OfOptimizer {
    int64_t number;  // of the optimizer, in order of coming
    Stage stage = Stage::kReady;
    std::optional<FoundInf> found;
    bool shared = false;             // with other ranks
    at::Tensor divisor;              // of gradients, that the step is to apply
    std::vector<std::string> names;  // of its parameters
    const void* named = nullptr;     // the first of them: another optimizer may come to its place

    void begin_again() {
      stage = Stage::kReady;
      found.reset();
      shared = false;
      divisor.reset();
    }
  };

  OfOptimizer& of(const torch::optim::Optimizer& optimizer);
  at::Tensor unscale(torch::optim::Optimizer& optimizer, bool norm, bool write);
  void share(OfOptimizer& state);
  at::Tensor step_by_closure(torch::optim::Optimizer& optimizer, OfOptimizer& state,
                             const torch::optim::Optimizer::LossClosure& closure);
  void raise_where_stuck(OfOptimizer* state);

  LossScale scale_;
  Share share_;
  std::map<const torch::optim::Optimizer*, OfOptimizer> optimizers_;
};

}  // namespace tilewright
