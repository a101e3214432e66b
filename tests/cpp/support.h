// What tests of C++ programs share: messages of errors, and names for files.
#pragma once
#include <c10/util/Exception.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <functional>
#include <string>

inline std::string message_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

#define EXPECT_MESSAGE(action, part)                             \
  do {                                                           \
    const std::string message = message_of([&] { action; });     \
    EXPECT_NE(message.find(part), std::string::npos) << message; \
  } while (false)

inline std::string temporary(const std::string& name) {
  return (std::filesystem::temp_directory_path() /
          ("tilewright_" + std::to_string(::getpid()) + "_" + name))
      .string();
}
