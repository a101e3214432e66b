// The kernels that an operator had before it was replaced.
#pragma once
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>

#include <map>
#include <mutex>
#include <string>

namespace tilewright {

// Kept for the life of the process: a replacement may run once more while it is being undone.
class OriginalKernels {
 public:
  static OriginalKernels& instance();

  // Remembers what serves the operator for the key now, unless it did before.
  void keep(const std::string& op, c10::DispatchKey key);

  // Calls it with the operator's arguments, in the order of its schema.
  template <class Result, class... Args>
  Result call(const std::string& op, c10::DispatchKey key, Args&&... args) const {
    torch::jit::Stack stack;
    torch::jit::push(stack, std::forward<Args>(args)...);
    run(op, key, stack);
    return take<Result>(stack, std::type_identity<Result>());
  }

 private:
  void run(const std::string& op, c10::DispatchKey key, torch::jit::Stack& stack) const;

  template <class Result>
  static at::Tensor take(torch::jit::Stack& stack, std::type_identity<at::Tensor>) {
    return stack[0].toTensor();
  }
  template <class Result, class... Parts>
  static Result take(torch::jit::Stack& stack, std::type_identity<std::tuple<Parts...>>) {
    return [&]<size_t... i>(std::index_sequence<i...>) {
      return Result(stack[i].toTensor()...);
    }(std::index_sequence_for<Parts...>());
  }

  mutable std::mutex mutex_;
  std::map<std::pair<std::string, c10::DispatchKey>, c10::SafeKernelFunction> kernels_;
};

}  // namespace tilewright
