// State dicts of LibTorch modules: named tensors out and in, to memory and to files, with errors
// that name the file and the key.
#pragma once
#include <torch/csrc/api/include/torch/ordered_dict.h>
#include <torch/nn/module.h>

#include <string>

#include "tilewright/core/export.h"

namespace tilewright {

using StateDict = torch::OrderedDict<std::string, torch::Tensor>;

// Parameters and buffers under dotted names, in the order of Python's state_dict; the tensors are
// the module's own, detached.
TILEWRIGHT_API StateDict state_dict(const torch::nn::Module& module);

// Copies values into the module. Every key and shape must match; dtypes and devices are converted.
// Checks all before it writes any. `source` (a file name) opens the error message.
TILEWRIGHT_API void load_state_dict(torch::nn::Module& module, const StateDict& state,
                                    const std::string& source = "state dict");

// Writes a torch archive, readable by torch::load and by load_module.
TILEWRIGHT_API void save_module(const torch::nn::Module& module, const std::string& path);

// Reads what save_module or torch::save wrote, or the tensors of a TorchScript file of the same
// names.
TILEWRIGHT_API void load_module(torch::nn::Module& module, const std::string& path);

}  // namespace tilewright
