# Finds the torch that is installed and defines Tilewright::torch. It serves the build and the
# installed package alike. find_package(Torch) does not serve: with a CUDA wheel of torch it fails
# on a machine without a CUDA toolkit, where tilewright is built for the CPU only.
#
# Looked at, in this order: TILEWRIGHT_TORCH_PREFIX, Torch_DIR, CMAKE_PREFIX_PATH, a torch that
# stands beside the installed package, the torch of the build (in-place installs only).

function(_tilewright_torch_candidates out)
  set(candidates ${TILEWRIGHT_TORCH_PREFIX})
  if(Torch_DIR)
    list(APPEND candidates ${Torch_DIR}/../../..)
  endif()
  foreach(prefix IN LISTS CMAKE_PREFIX_PATH)
    list(APPEND candidates ${prefix} ${prefix}/../..)
  endforeach()
  list(APPEND candidates ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/../../../../torch
       ${_tilewright_torch_of_build})
  set(${out} ${candidates} PARENT_SCOPE)
endfunction()

set(Tilewright_TORCH_PREFIX "")
_tilewright_torch_candidates(_candidates)
foreach(_candidate IN LISTS _candidates)
  if(EXISTS ${_candidate}/include/torch/library.h AND EXISTS ${_candidate}/lib/libtorch.so)
    get_filename_component(Tilewright_TORCH_PREFIX ${_candidate} ABSOLUTE)
    break()
  endif()
endforeach()
if(NOT Tilewright_TORCH_PREFIX)
  set(Tilewright_TORCH_MISSING "no torch found. Add its prefix to CMAKE_PREFIX_PATH: python -c 'import \
torch; print(torch.utils.cmake_prefix_path)' prints it")
  return()
endif()

set(_version_header ${Tilewright_TORCH_PREFIX}/include/torch/headeronly/version.h)
file(STRINGS ${_version_header} _lines REGEX "define TORCH_VERSION_(MAJOR|MINOR|PATCH) ")
string(REGEX REPLACE "[^0-9]+" ";" _numbers "${_lines}")
list(FILTER _numbers INCLUDE REGEX "^[0-9]+$")
list(JOIN _numbers "." Tilewright_TORCH_VERSION)

if(TARGET Tilewright::torch)
  return()
endif()
add_library(Tilewright::torch INTERFACE IMPORTED GLOBAL)
set_target_properties(Tilewright::torch PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES
    "${Tilewright_TORCH_PREFIX}/include;${Tilewright_TORCH_PREFIX}/include/torch/csrc/api/include")
# Without --no-as-needed the linker drops libtorch_cuda, and a C++ program sees no GPU.
set(_libraries "-Wl,--push-state,--no-as-needed")
foreach(_library torch torch_cpu torch_cuda c10 c10_cuda)
  set(_file ${Tilewright_TORCH_PREFIX}/lib/lib${_library}.so)
  if(EXISTS ${_file})
    list(APPEND _libraries ${_file})
  endif()
endforeach()
list(APPEND _libraries "-Wl,--pop-state")
set_target_properties(Tilewright::torch PROPERTIES INTERFACE_LINK_LIBRARIES "${_libraries}")
