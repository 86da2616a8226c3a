# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# COMMAND, krait_genome on four ranks with state passing, is run at two lengths: what a rank sends must not grow.
# It may shrink, where the planner takes another exchange of states for the longer row.
foreach(length 3000 12000)
  execute_process(COMMAND ${COMMAND} --length ${length} RESULT_VARIABLE result OUTPUT_VARIABLE output
                  ERROR_VARIABLE error TIMEOUT 120)
  message("${output}${error}")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "exit status ${result}")
  endif()
  if(NOT output MATCHES "sent per rank +([0-9.]+) MiB")
    message(FATAL_ERROR "the report has no line on what is sent")
  endif()
  set(sent_${length} ${CMAKE_MATCH_1})
endforeach()
if(sent_12000 LESS_EQUAL 0 OR sent_12000 GREATER sent_3000)
  message(FATAL_ERROR "a rank sends ${sent_3000} MiB for 3000 tokens, ${sent_12000} MiB for 12000")
endif()
