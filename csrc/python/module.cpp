// The Python module _C: the C++ models and what `python -m tilewright info` prints.
#include <torch/extension.h>

#include "tilewright/core/version.h"
#include "tilewright/python/bind.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "C++ modules of tilewright; the operators are in torch.ops.tilewright";
  m.def("version", &tilewright::version);
  m.def("built_torch_version", &tilewright::built_torch_version);
  m.def("built_cuda", &tilewright::built_cuda);
  m.def("cpu_instruction_set", &tilewright::cpu_instruction_set);
  tilewright::bind_attention(m);
  tilewright::bind_detection(m);
  tilewright::bind_dropin(m);
  tilewright::bind_forest(m);
  tilewright::bind_models(m);
  tilewright::bind_self_supervised(m);
  tilewright::bind_trees(m);
}
