# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# COMMAND must exit with 0, and its last line must match LAST_LINE.
execute_process(COMMAND ${COMMAND} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE error TIMEOUT 240)
message("${output}${error}")
if(NOT result EQUAL 0)
  message(FATAL_ERROR "exit status ${result}")
endif()
string(STRIP "${output}" output)
string(REGEX REPLACE ".*\n" "" last "${output}")
if(NOT last MATCHES "${LAST_LINE}")
  message(FATAL_ERROR "the last line is '${last}', expected a match of '${LAST_LINE}'")
endif()
