# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Builds the project CONSUMER from nothing and runs its PROGRAM: WAY is `package` or `subdirectory`.
function(run)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    list(JOIN ARGN " " command)
    message(FATAL_ERROR "failed (${status}): ${command}")
  endif()
endfunction()

set(settings)
string(REPLACE "|" ";" SETTINGS "${SETTINGS}")
foreach(setting IN LISTS SETTINGS)
  if(NOT setting MATCHES "=$|-NOTFOUND$")
    list(APPEND settings -D${setting})
  endif()
endforeach()

file(REMOVE_RECURSE ${WORK})
if(WAY STREQUAL "package")
  run(${CMAKE_COMMAND} --install ${KRAIT_BINARY} --prefix ${WORK}/prefix)
  list(APPEND settings -DCMAKE_PREFIX_PATH=${WORK}/prefix -DCMAKE_BUILD_TYPE=${CONFIGURATION})
else()
  # No build type: the whole library is compiled again, and without optimisation that takes half the time.
  list(APPEND settings -DKRAIT_SOURCE=${KRAIT_SOURCE})
endif()
run(${CMAKE_COMMAND} -S ${CONSUMER} -B ${WORK}/build -G ${GENERATOR} ${settings})
run(${CMAKE_COMMAND} --build ${WORK}/build --parallel 2)
run(${WORK}/build/${PROGRAM})
