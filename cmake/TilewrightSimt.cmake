# Adds the emulated CUDA device where its two needs are met: CUDA's headers and Boost.Context.
find_package(Boost QUIET COMPONENTS context)
if(NOT Boost_FOUND)
  message(STATUS "tilewright: no emulated device (Boost.Context is missing: libboost-context-dev)")
elseif(NOT TILEWRIGHT_CUDA_INCLUDE_DIR)
  message(STATUS "tilewright: no emulated device (no CUDA headers: a toolkit or nvidia-cuda-runtime)")
else()
  add_subdirectory(tests/simt)
endif()
