// Autocast in C++ programs: what torch.autocast is in Python.
//
//   {
//     tilewright::AutocastGuard autocast(at::kCPU, at::kBFloat16);
//     loss = model->forward(images, targets);
//   }
//   loss.backward();
#pragma once
#include <c10/core/DeviceType.h>
#include <c10/core/ScalarType.h>

#include "tilewright/core/export.h"

namespace tilewright {

// While it lives, operators on that device run in the dtype that autocast's rules give them. Guards
// nest; with enabled = false one makes an exception. cache: whether parameters that were cast are
// kept until the outermost guard ends. Of one thread, and of the backward passes that it starts.
// Errors: a dtype other than bfloat16 and float16.
class TILEWRIGHT_API AutocastGuard {
 public:
  explicit AutocastGuard(c10::DeviceType device, at::ScalarType dtype = at::kBFloat16,
                         bool enabled = true, bool cache = true);
  ~AutocastGuard();
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  c10::DeviceType device_;
  bool enabled_before_, cache_before_;
  at::ScalarType dtype_before_;
};

}  // namespace tilewright
