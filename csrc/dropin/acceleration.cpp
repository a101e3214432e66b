#include "tilewright/dropin/acceleration.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>
#include <torch/library.h>

#include <algorithm>
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

// The kernel that is called in place of theirs.
class Served : public c10::OperatorKernel {
 public:
  Served(const Replacement& how, c10::OperatorHandle ours, c10::SafeKernelFunction original)
      : how_(how), ours_(std::move(ours)), original_(std::move(original)) {}

  void operator()(const c10::OperatorHandle& theirs, c10::DispatchKeySet keys, Stack* stack) {
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

// One operator on one device, for as long as anybody holds it.
class Override {
 public:
  Override(const Replacement& how, c10::DispatchKey key) : name_(how.theirs), key_(key) {
    const std::string name = how.theirs;
    const size_t colons = name.find("::");
    const auto theirs = operator_of(how.theirs);
    library_ = std::make_unique<torch::Library>(torch::Library::IMPL, name.substr(0, colons), key,
                                                __FILE__, __LINE__);
    Silence silence;
    const c10::WarningUtils::WarningHandlerGuard guard(&silence);
    library_->impl(name.substr(colons + 2).c_str(),
                   torch::CppFunction::makeFromBoxedFunctor(std::make_unique<Served>(
                       how, *operator_of(how.ours), theirs->getComputedKernelForDispatchKey(key))));
  }
  std::string text() const {
    return name_ + (key_ == c10::DispatchKey::CPU ? " on cpu" : " on cuda");
  }

 private:
  std::string name_;
  c10::DispatchKey key_;
  std::unique_ptr<torch::Library> library_;
};

namespace {

// The override that stands, or a new one.
std::shared_ptr<Override> override_of(const Replacement& how, c10::DispatchKey key) {
  static std::mutex mutex;
  static std::map<std::pair<std::string, c10::DispatchKey>, std::weak_ptr<Override>> standing;
  const std::lock_guard<std::mutex> guard(mutex);
  std::weak_ptr<Override>& known = standing[{how.theirs, key}];
  std::shared_ptr<Override> found = known.lock();
  if (found == nullptr) {
    found = std::make_shared<Override>(how, key);
    known = found;
  }
  return found;
}

}  // namespace

Acceleration::Acceleration(const std::vector<std::string>& operators) {
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
    const bool wanted = operators.empty() || std::find(operators.begin(), operators.end(),
                                                       how.theirs) != operators.end();
    if (!wanted) continue;
    for (const auto key : {c10::DispatchKey::CPU, c10::DispatchKey::CUDA}) {
      if (key == c10::DispatchKey::CUDA && !how.on_cuda) continue;
      if (is_there(how, key)) overrides_.push_back(override_of(how, key));
    }
  }
}

Acceleration::~Acceleration() = default;

std::vector<std::string> Acceleration::replaced() const {
  std::vector<std::string> names;
  for (const auto& each : overrides_) names.push_back(each->text());
  return names;
}

}  // namespace tilewright
