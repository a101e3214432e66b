#include "tilewright/dropin/accelerate.h"

#include <c10/util/Exception.h>

#include "tilewright/dropin/original_kernels.h"
#include "tilewright/dropin/replacements.h"

namespace tilewright {
namespace {

// torch warns when a kernel replaces another; here every one does, and is meant to.
class NoWarnings : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

}  // namespace

struct Acceleration::Overrides {
  std::vector<std::unique_ptr<torch::Library>> libraries;
  std::vector<std::string> names;

  // Nothing where the operator is not there, or has no kernel for the key.
  void add(const Replacement& replacement) {
    const std::string op = std::string(replacement.space) + "::" + replacement.name;
    const auto handle = c10::Dispatcher::singleton().findSchema({op, ""});
    if (!handle || !handle->hasKernelForDispatchKey(replacement.key)) return;
    OriginalKernels::instance().keep(op, replacement.key);
    libraries.push_back(std::make_unique<torch::Library>(
        torch::Library::IMPL, replacement.space, replacement.key, __FILE__, __LINE__));
    replacement.add(*libraries.back());
    names.push_back(op + " (" + c10::toString(replacement.key) + ")");
  }
};

Acceleration::Acceleration() : overrides_(std::make_unique<Overrides>()) {
  NoWarnings silence;
  const c10::WarningUtils::WarningHandlerGuard guard(&silence);
  for (const Replacement& replacement : torchvision_replacements()) overrides_->add(replacement);
  for (const Replacement& replacement : attention_replacements()) overrides_->add(replacement);
}

Acceleration::~Acceleration() = default;

std::vector<std::string> Acceleration::replaced() const {
  return overrides_ ? overrides_->names : std::vector<std::string>();
}

void Acceleration::undo() { overrides_.reset(); }

}  // namespace tilewright
