// Planted bugs: each sanitizer must end the program that has one. Only in the sanitized build.
#include <gtest/gtest.h>
#include <sanitizer/lsan_interface.h>

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace {

volatile int64_t sink;  // what is read must be used, or it is not read

void read(const int64_t* values, volatile int64_t i) { sink = values[i]; }

TEST(SanitizerDeathTest, AddressSanitizerSeesAReadBehindTheEnd) {
  const auto values = std::make_unique<int64_t[]>(4);
  EXPECT_DEATH(read(values.get(), 4), "heap-buffer-overflow");
}

TEST(SanitizerDeathTest, AddressSanitizerSeesAReadOfWhatWasFreed) {
  auto values = std::make_unique<int64_t[]>(4);
  const int64_t* left = values.get();
  values.reset();
  EXPECT_DEATH(read(left, 0), "heap-use-after-free");
}

TEST(SanitizerDeathTest, UndefinedBehaviourEndsTheProgram) {
  volatile int64_t largest = std::numeric_limits<int64_t>::max();
  EXPECT_DEATH(largest = largest + 1, "signed integer overflow");
}

TEST(Sanitizer, LeakSanitizerSeesALeak) {
  if (std::getenv("ASAN_OPTIONS") != nullptr &&
      std::string(std::getenv("ASAN_OPTIONS")).find("detect_leaks=0") != std::string::npos) {
    GTEST_SKIP() << "leaks are not looked for";
  }
  std::cerr << "the leak that is reported next is planted:\n";
  static volatile uintptr_t hidden;  // the address, in a form that is no pointer
  hidden = ~reinterpret_cast<uintptr_t>(new int64_t[4]);
  std::vector<int64_t> over_the_stack(100);  // what the registers and the stack still hold
  EXPECT_EQ(__lsan_do_recoverable_leak_check(), 1);
  delete[] reinterpret_cast<int64_t*>(~hidden);
}

}  // namespace
