# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# COMMAND, krait_genome_train for 12 steps, is run as a whole, and again in two parts with a checkpoint between them. The
# losses must agree in every digit. FOLDER is for the files.
file(REMOVE_RECURSE ${FOLDER})
file(MAKE_DIRECTORY ${FOLDER})

function(train)
  execute_process(COMMAND ${COMMAND} ${ARGN} RESULT_VARIABLE result OUTPUT_VARIABLE output ERROR_VARIABLE error
                  TIMEOUT 120)
  message("${output}${error}")
  if(NOT result EQUAL 0)
    message(FATAL_ERROR "exit status ${result}")
  endif()
endfunction()

# The log without its last column, the speed.
function(losses variable file)
  file(STRINGS ${file} lines)
  list(TRANSFORM lines REPLACE ",[^,]*$" "")
  set(${variable} "${lines}" PARENT_SCOPE)
endfunction()

train(--csv ${FOLDER}/whole.csv)
train(--csv ${FOLDER}/parts.csv --save ${FOLDER}/half.bin --save-every 5 --stop-after 7)
train(--csv ${FOLDER}/parts.csv --resume ${FOLDER}/half.bin)
losses(whole ${FOLDER}/whole.csv)
losses(parts ${FOLDER}/parts.csv)
list(LENGTH whole lines)
if(NOT lines EQUAL 13)
  message(FATAL_ERROR "the log has ${lines} lines, expected a header and 12 steps")
endif()
if(NOT whole STREQUAL parts)
  message(FATAL_ERROR "the losses differ:\n${whole}\n${parts}")
endif()
