# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Every C++ block of README.md and docs/ must name the compiled file it is from, and stand there word for word:
#
#   <!-- from examples/01_layer/main.cpp -->
#   ```cpp
#
# ROOT: the checkout.
set(fence "```")
file(GLOB_RECURSE pages ${ROOT}/README.md ${ROOT}/docs/*.md)
set(checked 0)
foreach(page IN LISTS pages)
  file(READ ${page} rest)
  string(FIND "${rest}" "${fence}cpp\n" begin)
  while(NOT begin EQUAL -1)
    string(SUBSTRING "${rest}" 0 ${begin} before)
    if(NOT before MATCHES "<!-- from ([^ ]+) -->\n$")
      message(FATAL_ERROR "${page}: a C++ block does not say which file it is from")
    endif()
    set(source ${CMAKE_MATCH_1})
    math(EXPR begin "${begin} + 7")
    string(SUBSTRING "${rest}" ${begin} -1 rest)
    string(FIND "${rest}" "${fence}" end)
    string(SUBSTRING "${rest}" 0 ${end} block)
    file(READ ${ROOT}/${source} program)
    string(FIND "${program}" "${block}" place)
    if(place EQUAL -1)
      message(FATAL_ERROR "${page}: this block is not in ${source}:\n${block}")
    endif()
    math(EXPR checked "${checked} + 1")
    math(EXPR end "${end} + 3")
    string(SUBSTRING "${rest}" ${end} -1 rest)
    string(FIND "${rest}" "${fence}cpp\n" begin)
  endwhile()
endforeach()
if(checked EQUAL 0)
  message(FATAL_ERROR "no C++ block was found in ${ROOT}/README.md and ${ROOT}/docs")
endif()
message("${checked} blocks of the documentation are those of compiled programs")
