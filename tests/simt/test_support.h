// What the emulator's tests share.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tilewright/core/cuda/launch.h"

namespace tilewright::inline TILEWRIGHT_MACHINE {

// Runs `body`, which must throw; what it said.
template <class Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const std::exception& error) {
    return error.what();
  }
  ADD_FAILURE() << "no error";
  return "";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
#define EXPECT_SAYS(text, part) EXPECT_TRUE(contains(text, part)) << text

// Index order and some permutations; the order is put back at the end.
template <class Body>
void in_every_order(const Body& body) {
  for (int seed = 0; seed < 8; ++seed) {
#ifdef TILEWRIGHT_SIMT
    simt::set_order(seed);
#endif
    body();
  }
#ifdef TILEWRIGHT_SIMT
  simt::set_order(0);
#endif
}

}  // namespace tilewright::inline TILEWRIGHT_MACHINE
