// The loss scale as numbers on a device, and how it moves: what LossScaler and its TorchScript
// class have in common.
#pragma once
#include <ATen/core/Tensor.h>

#include <limits>
#include <optional>

#include "tilewright/core/export.h"

namespace tilewright {

inline constexpr const char* kLossScaler = "LossScaler";  // in errors

// As torch.amp.GradScaler's, and beyond them:
struct LossScaleOptions {
  double init_scale = 65536;
  double growth_factor = 2;
  double backoff_factor = 0.5;
  int64_t growth_interval = 2000;
  bool enabled = true;          // or losses and gradients stay as they are
  bool dynamic = true;          // or the scale does
  double min_scale = 0x1p-126;  // the least normal number of float32
  std::optional<double> max_scale;
  int64_t hysteresis = 1;  // so many bad steps in a row before the scale falls
};

// Of a file: what moves.
struct LossScaleState {
  double scale;
  int64_t growth_tracker;   // clean steps since the scale last changed
  int64_t hysteresis_left;  // bad steps before it falls
};

// (1,) tensors: whether a gradient was inf or NaN, float32, and the number of the first such
// parameter, int64.
struct TILEWRIGHT_API FoundInf {
  static constexpr int64_t kNowhere = std::numeric_limits<int64_t>::max();
  static constexpr int64_t kElsewhere = kNowhere - 1;  // of another rank

  explicit FoundInf(c10::Device device);
  FoundInf(at::Tensor found, at::Tensor first) : found(std::move(found)), first(std::move(first)) {}
  // Of both.
  void join(const FoundInf& other);

  at::Tensor found, first;
};

class TILEWRIGHT_API LossScale {
 public:
  // An error where an option cannot be, or the first scale is beyond floor and ceiling. Scales are
  // rounded to float32.
  explicit LossScale(const LossScaleOptions& given);

  const LossScaleOptions& options() const { return options_; }
  // Its numbers lie on the device of the first loss.
  bool begun() const { return scale_.defined(); }
  void begin(c10::Device device);
  c10::Device device() const { return scale_.device(); }

  at::Tensor scaled(const at::Tensor& loss);
  at::Tensor inverse() const;                          // (1,) float32
  const at::Tensor& number() const { return scale_; }  // (1,) float32
  // By what a step found; nothing waits for the device.
  void update(const FoundInf& found);
  void set(double scale);

  double read() const;
  // The number of a parameter that was inf or NaN at the floor, and forgets it; kNowhere where
  // there is none.
  int64_t read_stuck();
  // Whether a bad step now finds the scale at its floor, and hysteresis used up. Waits.
  bool gives_up() const;

  LossScaleState state() const;
  // A scale beyond floor and ceiling becomes the nearer of the two. An error where a number cannot
  // be, before anything is changed.
  void load(const LossScaleState& state);

 private:
  LossScaleOptions options_;
  LossScaleState first_;  // before there is a device
  at::Tensor scale_, growth_, left_, stuck_;
};

}  // namespace tilewright
