// What each file of csrc/python adds to the module.
#pragma once
#include <torch/extension.h>

namespace tilewright {
void bind_attention(pybind11::module_& m);
void bind_detection(pybind11::module_& m);
void bind_dropin(pybind11::module_& m);
void bind_forest(pybind11::module_& m);
void bind_models(pybind11::module_& m);
void bind_self_supervised(pybind11::module_& m);
void bind_trees(pybind11::module_& m);
}  // namespace tilewright
