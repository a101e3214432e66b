// The tensors of a file of weights, whoever wrote it: C++, TorchScript or Python.
#pragma once
#include <string>

#include "tilewright/core/export.h"
#include "tilewright/models/state.h"

namespace tilewright {

// Reads named tensors, onto the CPU, from
//   - what save_module, torch::save of a module or torch.jit.save wrote;
//   - what torch.save(dict(model.state_dict()), path) wrote in Python since torch 1.6, or
//     torch::pickle_save of a Dict(str, Tensor) in C++. No code of such a file is run.
// A plain dict: LibTorch reads no OrderedDict, which model.state_dict() is. tilewright.models
// reads those in Python, and its save() writes what is read here. Errors name the file,
// and the entry that is not a tensor; they open with the name of the `caller`.
TILEWRIGHT_API StateDict read_checkpoint(const std::string& path,
                                         const char* caller = "read_checkpoint");

}  // namespace tilewright
