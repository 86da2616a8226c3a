# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# COMMAND, krait_genome on four ranks, is run at two lengths. From one to the other a rank's peak may grow by at most
# 0.30 of what one rank's grows, so whatever is not divided by the ranks does not grow with the length.
foreach(length 3000 12000)
  execute_process(COMMAND ${COMMAND} --length ${length} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE error
                  TIMEOUT 240)
  message("${output}${error}")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "exit status ${result}")
  endif()
  if(NOT output MATCHES "peak activations +([0-9]+) bytes per rank, ([0-9]+) bytes on one rank")
    message(FATAL_ERROR "the report has no line on peak activations")
  endif()
  set(rank_${length} ${CMAKE_MATCH_1})
  set(alone_${length} ${CMAKE_MATCH_2})
endforeach()
math(EXPR rank_growth "${rank_12000} - ${rank_3000}")
math(EXPR alone_growth "${alone_12000} - ${alone_3000}")
math(EXPR limit "30 * ${alone_growth} / 100")
message("growth of a rank's peak: ${rank_growth} bytes, of one rank's: ${alone_growth}, limit ${limit}")
if(alone_growth LESS_EQUAL 0 OR rank_growth GREATER limit)
  message(FATAL_ERROR "a rank's peak memory grows by more than 0.30 of one rank's")
endif()
