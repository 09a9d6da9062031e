# A folder that runs where it is unpacked: fastdllm-VERSION-SYSTEM-ARCH.tar.gz, by `cpack` or the
# target `package`. Shared libraries only: they say what they need themselves, an archive would ask
# its user for the compiler and the libraries of this machine.
set(CPACK_GENERATOR TGZ)
set(CPACK_PACKAGE_NAME fastdllm)
set(CPACK_PACKAGE_FILE_NAME fastdllm-${PROJECT_VERSION}-${CMAKE_SYSTEM_NAME}-${CMAKE_SYSTEM_PROCESSOR})
set(CPACK_STRIP_FILES ON)
set(CPACK_ARCHIVE_COMPONENT_INSTALL ON)
set(CPACK_COMPONENT_INCLUDE_TOPLEVEL_DIRECTORY ON)
set(CPACK_COMPONENTS_GROUPING ALL_COMPONENTS_IN_ONE)
set(CPACK_COMPONENTS_ALL runtime development tools package)
set(CPACK_VERBATIM_VARIABLES ON)

# Component package: what a system's own packages would see to, so `cmake --install` leaves it out.
install(FILES LICENSE README.md cpp/JETSON.md cpp/cmake/THIRD_PARTY.md
  DESTINATION ${CMAKE_INSTALL_DOCDIR} COMPONENT package EXCLUDE_FROM_ALL)
set(apache_license /usr/share/common-licenses/Apache-2.0) # Debian's, of TensorRT's headers
if(FASTDLLM_HAS_TENSORRT AND EXISTS ${apache_license})
  install(FILES ${apache_license} DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME LICENSE.Apache-2.0
    COMPONENT package EXCLUDE_FROM_ALL)
endif()

# A library that programs load at run time goes along, under the name that they ask for, with its licence.
function(_fastdllm_bundle name library)
  get_filename_component(file "${library}" REALPATH)
  execute_process(COMMAND "${CMAKE_READELF}" -d "${file}" OUTPUT_VARIABLE entries COMMAND_ERROR_IS_FATAL ANY)
  if(NOT entries MATCHES "SONAME[^[]*\\[([^]]+)\\]")
    return() # an archive: it is inside fastdllm_text
  endif()
  install(FILES "${file}" DESTINATION ${CMAKE_INSTALL_LIBDIR} RENAME ${CMAKE_MATCH_1}
    COMPONENT package EXCLUDE_FROM_ALL)
  string(TOUPPER FASTDLLM_${name}_LICENSE variable)
  file(GLOB folders /usr/share/doc/lib${name}*)
  find_file(${variable} copyright PATHS ${folders} NO_DEFAULT_PATH NO_CMAKE_FIND_ROOT_PATH
    DOC "Licence of lib${name}, for the tar.gz")
  if(${variable})
    install(FILES "${${variable}}" DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME LICENSE.${name}
      COMPONENT package EXCLUDE_FROM_ALL)
  else()
    install(CODE "message(FATAL_ERROR \"set ${variable} to the file with lib${name}'s licence\")"
      COMPONENT package EXCLUDE_FROM_ALL)
  endif()
endfunction()

if(BUILD_SHARED_LIBS AND FASTDLLM_BUILD_TEXT)
  _fastdllm_bundle(pcre2 "${FASTDLLM_PCRE2_LINK_LIBRARIES}")
  _fastdllm_bundle(utf8proc "${FASTDLLM_UTF8PROC_LINK_LIBRARIES}")
endif()
include(CPack)
