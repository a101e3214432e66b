// Dicts of options to structs of them.
#pragma once
#include <torch/extension.h>

#include <string>
#include <type_traits>
#include <vector>

namespace tilewright {

// What an option of that type takes, in words.
template <class Field>
const char* kind_of_option() {
  if constexpr (std::is_same_v<Field, std::string>) return "a string";
  if constexpr (std::is_same_v<Field, bool>) return "True or False";
  if constexpr (std::is_integral_v<Field>) return "an integer";
  if constexpr (std::is_floating_point_v<Field>) return "a number";
  return "a list of integers";
}

// What for_each_option names; a name that `of` does not have is an error, and a value of another
// kind (ValueError).
template <class Options>
Options options_from(const py::dict& given, const char* of) {
  Options options;
  for (const auto& [key, value] : given) {
    const auto name = key.template cast<std::string>();
    bool known = false;
    for_each_option(options, [&, &of_key = value](const char* option, auto& field) {
      if (name != option) return;
      using Field = std::decay_t<decltype(field)>;
      // pybind would cut numpy's floats.
      const bool whole =
          !std::is_integral_v<Field> || PyIndex_Check(of_key.ptr()) || std::is_same_v<Field, bool>;
      try {
        if (!whole) throw py::cast_error();
        field = of_key.template cast<Field>();
      } catch (const py::cast_error&) {
        throw py::value_error("tilewright::" + std::string(of) + ": " + name + " must be " +
                              kind_of_option<Field>() + ", got " +
                              py::repr(of_key).template cast<std::string>());
      }
      known = true;
    });
    TORCH_CHECK(known, "tilewright::", of, ": there is no option ", name);
  }
  return options;
}

}  // namespace tilewright
