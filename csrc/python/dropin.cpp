// The drop-in: one object for as long as it stands.
#include "tilewright/dropin/acceleration.h"
#include "tilewright/python/bind.h"

namespace tilewright {

void bind_dropin(pybind11::module_& m) {
  pybind11::class_<Acceleration>(m, "Acceleration")
      .def(pybind11::init<const std::vector<std::string>&, const std::vector<std::string>&>())
      .def("replaced", &Acceleration::replaced)
      .def("undo", &Acceleration::undo);
}

}  // namespace tilewright
