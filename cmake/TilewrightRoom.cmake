# The functions by which a room of csrc/ adds its files; paths are relative to the room.

set(TILEWRIGHT_ISAS baseline)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  list(APPEND TILEWRIGHT_ISAS avx2 avx512)
endif()
set(_flags_baseline -DCPU_CAPABILITY=DEFAULT -DCPU_CAPABILITY_DEFAULT)
set(_flags_avx2 -mavx2 -mfma -mf16c -DCPU_CAPABILITY=AVX2 -DCPU_CAPABILITY_AVX2)
set(_flags_avx512 -mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx2 -mfma -mf16c
    -mprefer-vector-width=512 -DCPU_CAPABILITY=AVX512 -DCPU_CAPABILITY_AVX512)

function(_tilewright_absolute out)
  set(files "")
  foreach(file IN LISTS ARGN)
    get_filename_component(path ${file} ABSOLUTE)  # under this folder, where it is relative
    list(APPEND files ${path})
  endforeach()
  set(${out} ${files} PARENT_SCOPE)
endfunction()

# Host code: fronts, tensors -> params, models. With TILEWRIGHT_UNITY the compiler reads some files of a
# room as one: what torch's headers make of each file costs most of its time. So names in the anonymous
# namespaces of a room must differ.
set(_files_together 8)
function(tilewright_sources)
  _tilewright_absolute(files ${ARGN})
  target_sources(tilewright PRIVATE ${files})
  get_filename_component(room ${CMAKE_CURRENT_SOURCE_DIR} NAME)
  list(LENGTH files count)
  math(EXPR groups "(${count} + ${_files_together} - 1) / ${_files_together}")
  set(index 0)
  foreach(file IN LISTS files)  # groups of one size, in the order of names
    math(EXPR group "${index} * ${groups} / ${count}")
    set_source_files_properties(${file} TARGET_DIRECTORY tilewright PROPERTIES UNITY_GROUP ${room}_${group})
    math(EXPR index "${index} + 1")
  endforeach()
endfunction()

# One object library per instruction set; they differ in flags and in TILEWRIGHT_MACHINE.
function(tilewright_open_cpu_kernels)
  foreach(isa IN LISTS TILEWRIGHT_ISAS)
    add_library(tilewright_${isa} OBJECT)
    target_compile_options(tilewright_${isa} PRIVATE ${_flags_${isa}}
      ${TILEWRIGHT_KERNEL_OPTIONS} -fno-math-errno -fno-trapping-math -Wall -Wno-sign-compare
      -Wno-unknown-pragmas -Wno-ignored-qualifiers -Wno-maybe-uninitialized -Wno-uninitialized)
    target_compile_definitions(tilewright_${isa} PRIVATE TILEWRIGHT_MACHINE=on_${isa})
    target_include_directories(tilewright_${isa} PRIVATE ${TILEWRIGHT_TREE}/include
      $<TARGET_PROPERTY:Tilewright::torch,INTERFACE_INCLUDE_DIRECTORIES>)
    if(TILEWRIGHT_SANITIZE AND DEFINED TILEWRIGHT_SANITIZED_ISAS AND NOT isa IN_LIST TILEWRIGHT_SANITIZED_ISAS)
      target_compile_options(tilewright_${isa} PRIVATE -fno-sanitize=all -O0)  # is linked, never runs
    endif()
    target_sources(tilewright PRIVATE $<TARGET_OBJECTS:tilewright_${isa}>)
  endforeach()
endfunction()

# Vectorised loops: compiled once per instruction set.
function(tilewright_cpu_kernels)
  _tilewright_absolute(files ${ARGN})
  foreach(isa IN LISTS TILEWRIGHT_ISAS)
    target_sources(tilewright_${isa} PRIVATE ${files})
  endforeach()
endfunction()

# Some device sources as one: nvcc needs most of a minute for torch's headers, however little follows.
# tilewright_device_group(name [EXACT] files...); EXACT: without fused multiply-adds.
function(tilewright_device_group name)
  cmake_parse_arguments(PARSE_ARGV 1 _group EXACT "" "")
  _tilewright_absolute(files ${_group_UNPARSED_ARGUMENTS})
  list(TRANSFORM files REPLACE "(.+)" "#include \"\\1\"\n")
  list(JOIN files "" text)
  set(group ${PROJECT_BINARY_DIR}/device/${name}_cuda.cu)
  file(CONFIGURE OUTPUT ${group} CONTENT "${text}" @ONLY)
  tilewright_device_sources(${group})
  if(_group_EXACT AND TILEWRIGHT_WITH_CUDA)
    set_source_files_properties(${group} TARGET_DIRECTORY tilewright PROPERTIES COMPILE_OPTIONS -fmad=false)
  endif()
endfunction()

# Device code: compiled by nvcc where there is one, and always for the emulated device.
function(tilewright_device_sources)
  _tilewright_absolute(files ${ARGN})
  if(TILEWRIGHT_WITH_CUDA)
    target_sources(tilewright PRIVATE ${files})
  endif()
  set_property(GLOBAL APPEND PROPERTY TILEWRIGHT_DEVICE_SOURCES ${files})
endfunction()
