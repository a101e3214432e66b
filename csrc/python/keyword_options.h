// Keywords to the options of a model, and back to a dict.
#pragma once
#include <torch/extension.h>

#include <string>
#include <type_traits>

namespace tilewright {

// What the keywords name among the options of for_each_option; raises for a keyword of another name
// or type, with the name of the model.
template <class Options>
void set_options(Options& options, const py::kwargs& keywords) {
  const auto prefix = std::string("tilewright::") + options.model() + ": ";
  size_t used = 0;
  for_each_option(options, [&](const char* name, auto& value) {
    if (!keywords.contains(name)) return;
    try {
      value = keywords[name].template cast<std::decay_t<decltype(value)>>();
    } catch (const py::cast_error&) {
      throw py::type_error(prefix + name +
                           " has the wrong type: " + py::repr(keywords[name]).cast<std::string>());
    }
    ++used;
  });
  if (used == keywords.size()) return;
  py::set unknown(keywords);
  for_each_option(options, [&](const char* name, auto&) { unknown.attr("discard")(name); });
  throw py::type_error(prefix + "unknown options " + py::repr(unknown).cast<std::string>());
}

template <class Options>
py::dict dict_of_options(Options options) {
  py::dict out;
  for_each_option(options, [&](const char* name, auto& value) { out[name] = value; });
  return out;
}

}  // namespace tilewright
