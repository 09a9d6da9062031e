# Cross-compiles for 64-bit ARM Linux with the g++-aarch64-linux-gnu of Debian or Ubuntu. The
# compiler brings the C and C++ libraries; the others (PCRE2, utf8proc, GoogleTest) come from the
# folder FASTDLLM_AARCH64_ROOT, by default what get_aarch64.sh unpacked into .deps.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

set(FASTDLLM_AARCH64_ROOT "${CMAKE_CURRENT_LIST_DIR}/../../../.deps/aarch64/root"
  CACHE PATH "Root folder of an aarch64 system, with the libraries to build against")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES FASTDLLM_AARCH64_ROOT)
get_filename_component(_root "${FASTDLLM_AARCH64_ROOT}" ABSOLUTE)
set(CMAKE_FIND_ROOT_PATH "${_root}")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
# Headers and CMake packages without machine code may also lie on the building machine.
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE BOTH)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)
set(ENV{PKG_CONFIG_SYSROOT_DIR} "${_root}")
set(ENV{PKG_CONFIG_LIBDIR} "${_root}/usr/lib/aarch64-linux-gnu/pkgconfig:${_root}/usr/share/pkgconfig")
# Debian's headers of one architecture lie in a folder of its name. Last in the search, so that the
# compiler's own C library comes first.
set(_after "-idirafter \"${_root}/usr/include/aarch64-linux-gnu\" -idirafter \"${_root}/usr/include\"")
set(CMAKE_C_FLAGS_INIT "${_after}")
set(CMAKE_CXX_FLAGS_INIT "${_after}")
# What a library of the root needs itself.
set(_needed "-Wl,-rpath-link,${_root}/lib/aarch64-linux-gnu:${_root}/usr/lib/aarch64-linux-gnu")
set(CMAKE_EXE_LINKER_FLAGS_INIT "${_needed}")
set(CMAKE_SHARED_LINKER_FLAGS_INIT "${_needed}")

# The tests run under qemu-user where it is there, on the same folder as their root.
find_program(_qemu NAMES qemu-aarch64-static qemu-aarch64)
if(_qemu)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${_qemu}" -L "${_root}")
endif()
