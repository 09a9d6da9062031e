# Fetches the headers of ONNX Runtime and nlohmann/json into DESTINATION/include, as a build does that
# lacks them: by get_headers.sh where apt is, which asks the machine's own mirror; elsewhere the same
# Debian packages by name and digest, which takes CMake alone.
# usage: cmake -DDESTINATION=FOLDER -P get_headers.cmake
cmake_minimum_required(VERSION 3.25)
set(mirror https://deb.debian.org/debian/pool/main)
set(packages # path and SHA-256; headers have no architecture, so one fits all
  o/onnxruntime/libonnxruntime-dev_1.21.0+dfsg-1_amd64.deb
  14f7d959d5deacbcf1504830d4189f91fc67382b399ed9ae9d3aa9c4050ced08
  n/nlohmann-json3/nlohmann-json3-dev_3.11.3-2.1_all.deb
  741a6a32f61a14eaf9560ba1814b27da8e78fa3b9bed9e8867ab46316ddf3793)

find_program(apt apt-get)
find_program(dpkg dpkg)
find_program(bash bash)
if(apt AND dpkg AND bash)
  execute_process(COMMAND "${bash}" "${CMAKE_CURRENT_LIST_DIR}/get_headers.sh" "${DESTINATION}"
    ERROR_VARIABLE problem RESULT_VARIABLE failed)
  if(NOT failed)
    return()
  endif()
  string(STRIP "${problem}" problem)
  message("get_headers.sh: ${problem}")
endif()

set(work "${DESTINATION}/part")
file(REMOVE_RECURSE "${work}")
while(packages)
  list(POP_FRONT packages path digest)
  file(DOWNLOAD "${mirror}/${path}" "${work}/package.deb" STATUS status TIMEOUT 120 INACTIVITY_TIMEOUT 30)
  list(POP_FRONT status code)
  if(NOT code EQUAL 0)
    file(REMOVE_RECURSE "${work}")
    message(FATAL_ERROR "${mirror}/${path} could not be fetched: ${status}")
  endif()
  file(SHA256 "${work}/package.deb" found)
  if(NOT found STREQUAL digest)
    file(REMOVE_RECURSE "${work}")
    message(FATAL_ERROR "${mirror}/${path} is another file: SHA-256 ${found}, expected ${digest}")
  endif()
  file(ARCHIVE_EXTRACT INPUT "${work}/package.deb" DESTINATION "${work}")
  file(ARCHIVE_EXTRACT INPUT "${work}/data.tar.xz" DESTINATION "${work}/root")
  file(REMOVE "${work}/data.tar.xz")
endwhile()

file(REMOVE_RECURSE "${DESTINATION}/include")
file(RENAME "${work}/root/usr/include/onnxruntime" "${DESTINATION}/include")
file(RENAME "${work}/root/usr/include/nlohmann" "${DESTINATION}/include/nlohmann")
file(REMOVE_RECURSE "${work}")
