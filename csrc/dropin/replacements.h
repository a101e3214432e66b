// Which operators of others this library serves, and how their arguments become its own.
#pragma once
#include <ATen/core/stack.h>

#include <vector>

namespace tilewright {

using Stack = torch::jit::Stack;  // an operator's arguments, then its results

struct Replacement {
  const char* theirs;
  const char* ours;
  bool on_cuda;
  // Whether our operator does what theirs does with these arguments; null: always.
  bool (*covers)(const Stack& arguments);
  // Makes our arguments of theirs; null where they are the same.
  void (*arrange)(Stack& arguments);
  // Makes their results of ours, given what theirs was called with.
  void (*finish)(const Stack& theirs, Stack& results);
};

// Theirs are contiguous where ours follow the input.
void make_contiguous(const Stack& theirs, Stack& results);

std::vector<Replacement> vision_replacements();
std::vector<Replacement> attention_replacements();

}  // namespace tilewright
