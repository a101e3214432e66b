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

// Raises where `state` does not fit a module whose state is `own`: names the keys that are missing,
// those the module does not have, and the shapes that differ (ten of each kind). Batch norm's step
// counter may be missing or too many: frozen batch norm has none. `source` (a file name) opens the
// message. Not `strict`: only shapes are compared.
TILEWRIGHT_API void check_state_dict(const StateDict& own, const StateDict& state,
                                     const std::string& source = "state dict", bool strict = true);

// Copies values into the module. Every key and shape must match, as check_state_dict has it; dtypes
// and devices are converted. Checks all before it writes any.
TILEWRIGHT_API void load_state_dict(torch::nn::Module& module, const StateDict& state,
                                    const std::string& source = "state dict");

// Writes a torch archive, readable by torch::load and by load_module.
TILEWRIGHT_API void save_module(const torch::nn::Module& module, const std::string& path);

// Loads what read_checkpoint reads: files of save_module, torch::save, TorchScript, and state dicts
// that torch.save wrote in Python, such as torchvision's. Errors name the file and the keys, and
// the module is as before then.
TILEWRIGHT_API void load_module(torch::nn::Module& module, const std::string& path);

}  // namespace tilewright
