// What accelerate.cpp registers: kernels under the names of others, for one dispatch key each.
#pragma once
#include <torch/library.h>

namespace tilewright {

// An operator's replacement. `add` registers it in a library of its namespace and key.
struct Replacement {
  const char *space, *name;  // "torchvision", "nms"
  c10::DispatchKey key;
  void (*add)(torch::Library&);
};

std::vector<Replacement> torchvision_replacements();
std::vector<Replacement> attention_replacements();

}  // namespace tilewright
