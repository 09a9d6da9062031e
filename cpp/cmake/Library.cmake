# A library of the product, NAME, made of the objects NAME_objects. What it exports is marked by
# FASTDLLM_API; everything else is hidden. BUILD_SHARED_LIBS says what it is. NAME_internal is the
# same code as a static library always: for tests of what is hidden, and for the Python module.
#   LINK: libraries of ours whose headers its own include. USES: libraries that nobody sees.
function(fastdllm_library name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "LINK;USES")
  set_target_properties(${name}_objects PROPERTIES
    POSITION_INDEPENDENT_CODE ON
    C_VISIBILITY_PRESET hidden
    CXX_VISIBILITY_PRESET hidden
    VISIBILITY_INLINES_HIDDEN ON)
  target_include_directories(${name}_objects
    PUBLIC ${PROJECT_SOURCE_DIR}/cpp/include ${PROJECT_BINARY_DIR}/cpp/include
    PRIVATE ${PROJECT_SOURCE_DIR}/cpp/src)
  target_link_libraries(${name}_objects PRIVATE ${arg_USES} fastdllm_options fastdllm_headers)

  add_library(${name} $<TARGET_OBJECTS:${name}_objects>)
  target_compile_features(${name} PUBLIC cxx_std_20)
  target_link_libraries(${name} PUBLIC ${arg_LINK} PRIVATE ${arg_USES} $<BUILD_INTERFACE:fastdllm_options>)
  # Before 1.0 a minor version may change the ABI, so it is part of the library's name.
  set_target_properties(${name} PROPERTIES
    LINKER_LANGUAGE CXX
    VERIFY_INTERFACE_HEADER_SETS ON
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR})

  if(NOT BUILD_SHARED_LIBS)
    add_library(${name}_internal ALIAS ${name})
    return()
  endif()
  if(NOT FASTDLLM_SANITIZE)
    target_link_options(${name} PRIVATE -Wl,--no-undefined)
  endif()
  # Templates of the standard library are visible whatever the options say.
  set(map ${PROJECT_SOURCE_DIR}/cpp/cmake/exports.map)
  target_link_options(${name} PRIVATE -Wl,--version-script=${map})
  set_target_properties(${name} PROPERTIES LINK_DEPENDS ${map})

  add_library(${name}_internal STATIC EXCLUDE_FROM_ALL $<TARGET_OBJECTS:${name}_objects>)
  set_target_properties(${name}_internal PROPERTIES LINKER_LANGUAGE CXX)
  list(TRANSFORM arg_LINK APPEND _internal)
  target_include_directories(${name}_internal
    PUBLIC ${PROJECT_SOURCE_DIR}/cpp/include ${PROJECT_BINARY_DIR}/cpp/include)
  target_compile_features(${name}_internal PUBLIC cxx_std_20)
  target_link_libraries(${name}_internal PUBLIC ${arg_LINK} PRIVATE ${arg_USES})
endfunction()
