// Dicts of options to structs of them.
#pragma once
#include <torch/extension.h>

#include <string>
#include <type_traits>

namespace tilewright {

// What for_each_option names; a name that `of` does not have is an error.
template <class Options>
Options options_from(const py::dict& given, const char* of) {
  Options options;
  for (const auto& [key, value] : given) {
    const auto name = key.template cast<std::string>();
    bool known = false;
    for_each_option(options, [&, &of_key = value](const char* option, auto& field) {
      if (name != option) return;
      field = of_key.template cast<std::decay_t<decltype(field)>>();
      known = true;
    });
    TORCH_CHECK(known, of, " has no option ", name);
  }
  return options;
}

}  // namespace tilewright
