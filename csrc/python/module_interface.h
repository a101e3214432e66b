// What every C++ module shows to Python: the methods of torch.nn.Module that one misses first, and
// conversions of state dicts.
#pragma once
#include <torch/extension.h>

#include <memory>
#include <string>

#include "tilewright/models/layout.h"
#include "tilewright/models/state.h"

namespace tilewright {

namespace py = pybind11;

inline py::dict dict_of(const torch::OrderedDict<std::string, torch::Tensor>& named) {
  py::dict out;
  for (const auto& item : named) out[py::str(item.key())] = item.value();
  return out;
}

inline StateDict state_from(const py::dict& tensors) {
  StateDict state;
  for (const auto& [key, value] : tensors) {
    const auto name = py::str(key).cast<std::string>();
    TORCH_CHECK_TYPE(THPVariable_Check(value.ptr()), "tilewright::load_state_dict: entry ", name,
                     " must be a tensor, got ", std::string(py::str(py::type::of(value))),
                     " (of a checkpoint with more than weights, take the dict of weights)");
    state.insert(name, value.cast<torch::Tensor>());
  }
  return state;
}

inline torch::Device device_from(const py::object& device) {
  return py::isinstance<py::str>(device) ? torch::Device(device.cast<std::string>())
                                         : device.cast<torch::Device>();
}

inline at::ScalarType dtype_from(const py::object& dtype) {
  TORCH_CHECK_TYPE(THPDtype_Check(dtype.ptr()), "dtype must be a torch.dtype, got ",
                   std::string(py::str(py::type::of(dtype))));
  return reinterpret_cast<THPDtype*>(dtype.ptr())->scalar_type;
}

inline at::MemoryFormat format_from(const py::object& format) {
  TORCH_CHECK_TYPE(THPMemoryFormat_Check(format.ptr()),
                   "memory_format must be a torch.memory_format, got ",
                   std::string(py::str(py::type::of(format))));
  return reinterpret_cast<THPMemoryFormat*>(format.ptr())->memory_format;
}

// Module::to would turn the integer buffers of batch norm into floating ones.
inline void convert_floating(torch::nn::Module& model, torch::ScalarType dtype) {
  const auto convert = [dtype](torch::Tensor tensor) {
    if (tensor.is_floating_point()) tensor.set_data(tensor.to(dtype));
  };
  for (const auto& parameter : model.parameters()) convert(parameter);
  for (const auto& buffer : model.buffers()) convert(buffer);
}

// The methods that torch.nn.Module has too.
template <class Model>
void bind_module_interface(py::class_<Model, std::shared_ptr<Model>>& model) {
  model.def("parameters", [](const Model& m) { return m.parameters(); })
      .def("named_parameters", [](const Model& m) { return m.named_parameters().pairs(); })
      .def("named_buffers", [](const Model& m) { return m.named_buffers().pairs(); })
      .def(
          "state_dict", [](const Model& m) { return dict_of(state_dict(m)); },
          "Parameters and buffers under the Python twin's names, detached; they share memory with "
          "the "
          "model.")
      .def(
          "load_state_dict",
          [](Model& m, const py::dict& tensors) { load_state_dict(m, state_from(tensors)); },
          py::arg("state_dict"), "Copies the values in; every key and shape must match.")
      .def(
          "save", [](const Model& m, const std::string& path) { save_module(m, path); },
          py::arg("path"), "Writes a torch archive, which tilewright::load_module reads in C++.")
      .def(
          "load",
          [](std::shared_ptr<Model> m, const py::object& path) {
            // Python's reader knows one format more: an OrderedDict that torch.save wrote.
            const auto tensors = py::module_::import("tilewright.models.checkpoint")
                                     .attr("read_checkpoint")(path, "load_module")
                                     .cast<py::dict>();
            load_state_dict(*m, state_from(tensors), py::str(path));
            return m;
          },
          py::arg("path"),
          "Loads what save, torch.jit.save or torch.save(state_dict) wrote; an error names the "
          "file and the keys, and nothing was written then.")
      .def(
          "train",
          [](std::shared_ptr<Model> m, bool mode) {
            m->train(mode);
            return m;
          },
          py::arg("mode") = true)
      .def("eval",
           [](std::shared_ptr<Model> m) {
             m->eval();
             return m;
           })
      .def("zero_grad", [](Model& m) { m.zero_grad(); })
      .def_property_readonly("training", [](const Model& m) { return m.is_training(); })
      .def(
          "to",
          [](std::shared_ptr<Model> m, const py::object& device, const py::object& dtype,
             const py::object& memory_format) {
            // As torch.nn.Module.to: a dtype may come first.
            const bool only_dtype = THPDtype_Check(device.ptr());
            if (!device.is_none() && !only_dtype) m->to(device_from(device));
            if (only_dtype) convert_floating(*m, dtype_from(device));
            if (!dtype.is_none()) convert_floating(*m, dtype_from(dtype));
            if (!memory_format.is_none()) set_memory_format(*m, format_from(memory_format));
            return m;
          },
          py::arg("device") = py::none(), py::arg("dtype") = py::none(),
          py::arg("memory_format") = py::none(),
          "Moves all parameters and buffers to `device` (a string will do), converts the floating "
          "ones to `dtype`, and lays out weights as `memory_format`; to(dtype) alone works too.");
}

}  // namespace tilewright
