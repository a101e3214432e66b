# Adds the emulated CUDA device where its two needs are met: CUDA's headers and Boost.Context.
find_path(TILEWRIGHT_BOOST_INCLUDE_DIR boost/context/detail/fcontext.hpp)
# The static library: two functions of assembler, which are position independent.
find_library(TILEWRIGHT_BOOST_CONTEXT NAMES libboost_context.a boost_context)
if(NOT TILEWRIGHT_BOOST_INCLUDE_DIR OR NOT TILEWRIGHT_BOOST_CONTEXT)
  message(STATUS "tilewright: no emulated device (Boost.Context is missing: libboost-context-dev)")
elseif(NOT TILEWRIGHT_CUDA_INCLUDE_DIR)
  message(STATUS "tilewright: no emulated device (no CUDA headers: a toolkit, or the wheels "
                 "nvidia-cuda-runtime, nvidia-cuda-crt and nvidia-cuda-cccl)")
else()
  add_subdirectory(tests/simt)
endif()
