# Installs the package: libraries, headers, the CMake package, all below one prefix (the Python
# package's folder, when pip drives).
include(CMakePackageConfigHelpers)

if(TILEWRIGHT_IN_PLACE)
  set(_tilewright_torch_of_build ${Tilewright_TORCH_PREFIX})
else()
  set(_tilewright_torch_of_build "")
endif()
set(_package ${TILEWRIGHT_TREE}/share/cmake/Tilewright)
configure_file(cmake/TilewrightConfig.cmake.in ${_package}/TilewrightConfig.cmake @ONLY)
write_basic_package_version_file(${_package}/TilewrightConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
configure_file(cmake/TilewrightTorch.cmake ${_package}/TilewrightTorch.cmake COPYONLY)

install(TARGETS tilewright LIBRARY DESTINATION lib)
if(TARGET tilewright_simt)
  install(TARGETS tilewright_simt LIBRARY DESTINATION lib)
endif()
if(TARGET _C)
  install(TARGETS _C LIBRARY DESTINATION .)
endif()
install(DIRECTORY csrc/ DESTINATION include/tilewright
        FILES_MATCHING PATTERN "*.h" PATTERN "*_cpu.h" EXCLUDE PATTERN "python" EXCLUDE)
install(DIRECTORY ${_package} DESTINATION share/cmake)
