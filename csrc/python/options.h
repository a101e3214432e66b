// Python's values as options, and dicts of options to structs of them.
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
  if constexpr (std::is_same_v<Field, std::vector<double>>) return "a list of numbers";
  if constexpr (std::is_same_v<Field, std::vector<std::vector<double>>>) {
    return "a list of lists of numbers";
  }
  return "a list of integers";
}

template <class Field>
inline constexpr bool is_list = false;
template <class Item>
inline constexpr bool is_list<std::vector<Item>> = true;

// pybind would cut numpy's floats, take True for 1 and 2 for True, and take tensors that should
// learn for numbers.
template <class Field>
void check_kind(const py::handle& value) {
  bool fits = true;
  if constexpr (is_list<Field>) {
    fits = py::isinstance<py::sequence>(value);
    if (fits) {
      for (const py::handle item : py::reinterpret_borrow<py::sequence>(value)) {
        check_kind<typename Field::value_type>(item);
      }
    }
  } else if constexpr (std::is_same_v<Field, bool>) {
    fits = py::detail::make_caster<bool>().load(value, /*convert=*/false);
  } else if constexpr (std::is_integral_v<Field>) {
    fits = PyIndex_Check(value.ptr()) && !PyBool_Check(value.ptr());
  } else if constexpr (std::is_floating_point_v<Field>) {
    fits = !THPVariable_Check(value.ptr()) && !PyBool_Check(value.ptr());
  }
  if (!fits) throw py::cast_error();
}

// A value as the option's field; `Error` (py::type_error, py::value_error) where it is of another
// kind. `option` is its name after that of the model.
template <class Error, class Field>
void set_option(Field& field, const py::handle& value, const std::string& option) {
  try {
    check_kind<Field>(value);
    field = value.cast<Field>();
  } catch (const py::cast_error&) {
    throw Error(option + " must be " + kind_of_option<Field>() + ", got " +
                py::repr(value).template cast<std::string>());
  }
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
      set_option<py::value_error>(field, of_key, "tilewright::" + std::string(of) + ": " + name);
      known = true;
    });
    TORCH_CHECK(known, "tilewright::", of, ": there is no option ", name);
  }
  return options;
}

}  // namespace tilewright
