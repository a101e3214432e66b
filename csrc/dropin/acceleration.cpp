#include "tilewright/dropin/acceleration.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <optional>

#include "tilewright/core/check.h"
#include "tilewright/dropin/replacements.h"

namespace tilewright {
namespace {

constexpr const char* kName = "accelerate";

// torch warns of kernels that replace others; these are meant to.
class Silence : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

// The kernel that is called in place of theirs, and hands on where nobody wants it.
class Served : public c10::OperatorKernel {
 public:
  Served(const Replacement& how, c10::OperatorHandle ours, c10::SafeKernelFunction original,
         const std::atomic<int>& users)
      : how_(how), ours_(std::move(ours)), original_(std::move(original)), users_(users) {}

  void operator()(const c10::OperatorHandle& theirs, c10::DispatchKeySet keys, Stack* stack) {
    if (users_.load() == 0) return original_.callBoxed(theirs, keys, stack);
    const size_t count = theirs.schema().arguments().size();
    const auto first = stack->end() - int64_t(count);
    Stack given(first, stack->end());
    if (how_.covers != nullptr && !how_.covers(given)) {
      return original_.callBoxed(theirs, keys, stack);
    }
    stack->erase(first, stack->end());
    Stack own = given;
    if (how_.arrange != nullptr) how_.arrange(own);
    {
      // Whoever called the original's kernel has been through autograd and autocast.
      const at::AutoDispatchBelowADInplaceOrView below;
      const c10::impl::ExcludeDispatchKeyGuard no_autocast(c10::autocast_dispatch_keyset);
      ours_.callBoxed(own);
      how_.finish(given, own);
    }
    stack->insert(stack->end(), own.begin(), own.end());
  }

 private:
  Replacement how_;
  c10::OperatorHandle ours_;
  c10::SafeKernelFunction original_;
  const std::atomic<int>& users_;
};

std::vector<Replacement> replacements() {
  std::vector<Replacement> all = vision_replacements();
  const std::vector<Replacement> more = attention_replacements();
  all.insert(all.end(), more.begin(), more.end());
  return all;
}

std::optional<c10::OperatorHandle> operator_of(const char* name) {
  return c10::Dispatcher::singleton().findSchema({name, ""});
}

// Both have a kernel for the device.
bool is_there(const Replacement& how, c10::DispatchKey key) {
  const auto theirs = operator_of(how.theirs), ours = operator_of(how.ours);
  return theirs.has_value() && ours.has_value() && theirs->hasKernelForDispatchKey(key) &&
         ours->hasKernelForDispatchKey(key);
}

std::string known_names() {
  std::string names;
  for (const Replacement& how : replacements()) {
    names += names.empty() ? "" : ", ";
    names += how.theirs;
  }
  return names;
}

}  // namespace

// One operator on one device. Once made it stays, so that no call ever meets a kernel that goes:
// what comes and goes are its users.
class Override {
 public:
  Override(const Replacement& how, c10::DispatchKey key)
      : name_(std::string(how.theirs) + (key == c10::DispatchKey::CPU ? " on cpu" : " on cuda")) {
    const std::string name = how.theirs;
    const size_t colons = name.find("::");
    const auto theirs = operator_of(how.theirs);
    library_ = std::make_unique<torch::Library>(torch::Library::IMPL, name.substr(0, colons), key,
                                                __FILE__, __LINE__);
    Silence silence;
    const c10::WarningUtils::WarningHandlerGuard guard(&silence);
    library_->impl(
        name.substr(colons + 2).c_str(),
        torch::CppFunction::makeFromBoxedFunctor(std::make_unique<Served>(
            how, *operator_of(how.ours), theirs->getComputedKernelForDispatchKey(key), users_)));
  }
  void join() { ++users_; }
  void leave() { --users_; }
  const std::string& name() const { return name_; }

 private:
  std::string name_;
  std::atomic<int> users_{0};
  std::unique_ptr<torch::Library> library_;
};

namespace {

// The override there is, or a new one.
Override& override_of(const Replacement& how, c10::DispatchKey key) {
  // Not destroyed: calls may outlive this library's own end.
  static auto& mutex = *new std::mutex;
  static auto& made =
      *new std::map<std::pair<std::string, c10::DispatchKey>, std::unique_ptr<Override>>;
  const std::lock_guard<std::mutex> guard(mutex);
  std::unique_ptr<Override>& found = made[{how.theirs, key}];
  if (found == nullptr) found = std::make_unique<Override>(how, key);
  return *found;
}

}  // namespace

Acceleration::Acceleration(const std::vector<std::string>& operators,
                           const std::vector<std::string>& devices) {
  const auto has = [](const std::vector<std::string>& names, const std::string& name) {
    return names.empty() || std::find(names.begin(), names.end(), name) != names.end();
  };
  for (const std::string& device : devices) {
    TILEWRIGHT_CHECK(kName, device == "cpu" || device == "cuda",
                     "devices may be of cpu and cuda, got ", device);
  }
  const std::vector<Replacement> all = replacements();
  for (const std::string& name : operators) {
    const auto how = std::find_if(all.begin(), all.end(),
                                  [&](const Replacement& r) { return name == r.theirs; });
    TILEWRIGHT_CHECK(kName, how != all.end(), "operators may be of ", known_names(), "; got ",
                     name);
    TILEWRIGHT_CHECK(kName, is_there(*how, c10::DispatchKey::CPU), name,
                     " is not registered: load what defines it first (import torchvision)");
  }
  for (const Replacement& how : all) {
    if (!has(operators, how.theirs)) continue;
    if (has(devices, "cpu") && is_there(how, c10::DispatchKey::CPU)) {
      overrides_.push_back(&override_of(how, c10::DispatchKey::CPU));
    }
    if (has(devices, "cuda") && how.on_cuda && is_there(how, c10::DispatchKey::CUDA)) {
      overrides_.push_back(&override_of(how, c10::DispatchKey::CUDA));
    }
  }
  TILEWRIGHT_CHECK(kName, !overrides_.empty(), "none of these operators has kernels on ",
                   devices.empty() ? "cpu or cuda" : devices.front(),
                   ", theirs and this library's");
  for (Override* each : overrides_) each->join();
}

void Acceleration::undo() {
  for (Override* each : overrides_) each->leave();
  overrides_.clear();
}

std::vector<std::string> Acceleration::replaced() const {
  std::vector<std::string> names;
  for (const Override* each : overrides_) names.push_back(each->name());
  return names;
}

}  // namespace tilewright
