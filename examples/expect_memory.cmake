# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# COMMAND, a genome program on four ranks, is run at two lengths, and ALONE, the same on one rank, where given; else the
# figure of one rank is the one that COMMAND reports, which may report several strategies. From one length to the other a rank's peak may grow by at most 0.30
# of what one rank's grows, so whatever is not divided by the ranks does not grow with the length.

# peak(<variable> <variable> command...): what the run reports for its own ranks, a figure a strategy, and for one rank.
function(peak own alone)
  execute_process(COMMAND ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE error TIMEOUT 240)
  message("${output}${error}")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "exit status ${result}")
  endif()
  if(NOT output MATCHES "peak activations +([0-9 ]*[0-9]) +bytes per rank, ([0-9]+) bytes on one rank")
    message(FATAL_ERROR "the report has no line on peak activations")
  endif()
  set(${alone} ${CMAKE_MATCH_2} PARENT_SCOPE)
  string(REGEX REPLACE " +" ";" figures "${CMAKE_MATCH_1}")
  set(${own} ${figures} PARENT_SCOPE)
endfunction()

foreach(length 3000 12000)
  peak(rank_${length} alone_${length} ${COMMAND} --length ${length})
  if(ALONE)
    set(reported ${alone_${length}})
    peak(alone_${length} unused ${ALONE} --length ${length})
    # Tables and the like apart, what is reported for one rank is what one rank needs.
    math(EXPR missing "(${alone_${length}} - ${reported}) * 100 / ${alone_${length}}")
    message("one rank: ${alone_${length}} bytes, reported by four ranks: ${reported}")
    if(missing GREATER 2 OR missing LESS -2)
      message(FATAL_ERROR "the figure of one rank that four ranks report is off by ${missing} %")
    endif()
  endif()
endforeach()
math(EXPR alone_growth "${alone_12000} - ${alone_3000}")
math(EXPR limit "30 * ${alone_growth} / 100")
foreach(short long IN ZIP_LISTS rank_3000 rank_12000)
  math(EXPR rank_growth "${long} - ${short}")
  message("growth of a rank's peak: ${rank_growth} bytes, of one rank's: ${alone_growth}, limit ${limit}")
  if(alone_growth LESS_EQUAL 0 OR rank_growth GREATER limit)
    message(FATAL_ERROR "a rank's peak memory grows by more than 0.30 of one rank's")
  endif()
endforeach()
