// Keywords to the options of a model, and back to a dict.
#pragma once
#include <torch/extension.h>

#include <string>

#include "tilewright/python/options.h"

namespace tilewright {

// What the keywords name among the options of for_each_option; raises TypeError for a keyword of
// another name or type, with the name of the model and what there is.
template <class Options>
void set_options(Options& options, const py::kwargs& keywords) {
  const auto prefix = std::string("tilewright::") + options.model() + ": ";
  size_t used = 0;
  for_each_option(options, [&](const char* name, auto& value) {
    if (!keywords.contains(name)) return;
    set_option<py::type_error>(value, keywords[name], prefix + name);
    ++used;
  });
  if (used == keywords.size()) return;
  py::set unknown(keywords);
  std::string known;
  for_each_option(options, [&](const char* name, auto&) {
    unknown.attr("discard")(name);
    known += (known.empty() ? "" : ", ") + std::string(name);
  });
  throw py::type_error(prefix + "unknown options " + py::repr(unknown).cast<std::string>() +
                       ", there are " + known);
}

template <class Options>
py::dict dict_of_options(Options options) {
  py::dict out;
  for_each_option(options, [&](const char* name, auto& value) { out[name] = value; });
  return out;
}

}  // namespace tilewright
