# What `cmake --install` lays down. Components: runtime (shared libraries), development (headers,
# archives, CMake and pkg-config files), tools (fastdllm-cli, see cpp/apps).
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/fastdllm)

# fastdllm.pc lies in the library's folder, from where it finds the rest: the folder may be moved.
file(RELATIVE_PATH FASTDLLM_PC_PREFIX /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
string(REGEX REPLACE "/$" "" FASTDLLM_PC_PREFIX "${FASTDLLM_PC_PREFIX}")
# What an archive needs its user links; a shared library brings it along.
set(FASTDLLM_PC_LIBS "")
set(FASTDLLM_TEXT_PC_REQUIRES "")
if(NOT BUILD_SHARED_LIBS)
  set(FASTDLLM_PC_LIBS " -lstdc++ -lm -ldl -pthread")
  set(FASTDLLM_TEXT_PC_REQUIRES ", libpcre2-8, libutf8proc")
endif()

function(_fastdllm_install library)
  install(TARGETS ${library} EXPORT ${library}Targets
    ARCHIVE COMPONENT development
    LIBRARY COMPONENT runtime NAMELINK_COMPONENT development
    FILE_SET HEADERS COMPONENT development)
  install(EXPORT ${library}Targets NAMESPACE fastdllm:: DESTINATION ${package_dir} COMPONENT development)
  configure_file(${PROJECT_SOURCE_DIR}/cpp/cmake/${library}.pc.in ${library}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${library}.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT development)
endfunction()

_fastdllm_install(fastdllm)
if(FASTDLLM_BUILD_TEXT)
  _fastdllm_install(fastdllm_text)
endif()

configure_package_config_file(cmake/fastdllmConfig.cmake.in fastdllmConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(fastdllmConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/fastdllmConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/fastdllmConfigVersion.cmake
  DESTINATION ${package_dir} COMPONENT development)
