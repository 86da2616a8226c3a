# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# Runs the examples as a user would, with good and bad input.

# krait_example_command(<variable> RANKS <program> [arguments]): the command line for so many ranks; empty without MPI
# unless there is one.
function(krait_example_command variable ranks program)
  set(command $<TARGET_FILE:${program}> ${ARGN})
  if(TARGET MPI::MPI_CXX)
    set(command ${MPIEXEC_EXECUTABLE} ${MPIEXEC_NUMPROC_FLAG} ${ranks} ${MPIEXEC_PREFLAGS} ${command} ${MPIEXEC_POSTFLAGS})
  elseif(NOT ranks EQUAL 1)
    set(command "")
  endif()
  set(${variable} "${command}" PARENT_SCOPE)
endfunction()

function(krait_example_properties test ranks)
  set_tests_properties(${test} PROPERTIES PROCESSORS ${ranks} TIMEOUT 300 LABELS example
                                          ENVIRONMENT "OMP_NUM_THREADS=1;OMP_PROC_BIND=false")
endfunction()

# krait_example_test(NAME RANKS <program> [arguments]): the run must end well, and with the line that says so.
function(krait_example_test name ranks program)
  krait_example_command(command ${ranks} ${program} ${ARGN})
  if(command)
    add_test(NAME example.${name}.ranks${ranks}
             COMMAND ${CMAKE_COMMAND} "-DCOMMAND=${command}" "-DLAST_LINE=^krait: ok"
                     -P ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/expect_success.cmake)
    krait_example_properties(example.${name}.ranks${ranks} ${ranks})
  endif()
endfunction()

# krait_example_refusal(NAME MESSAGE <program> [arguments]): on three ranks (or one, without MPI) the run must fail, say
# MESSAGE once, and not hang.
function(krait_example_refusal name message program)
  set(ranks 3)
  if(NOT TARGET MPI::MPI_CXX)
    set(ranks 1)
  endif()
  krait_example_command(command ${ranks} ${program} ${ARGN})
  add_test(NAME example.refuses.${name}
           COMMAND ${CMAKE_COMMAND} "-DCOMMAND=${command}" "-DMESSAGE=${message}"
                   -P ${CMAKE_CURRENT_FUNCTION_LIST_DIR}/expect_failure.cmake)
  krait_example_properties(example.refuses.${name} ${ranks})
endfunction()

foreach(ranks 1 2 3)
  krait_example_test(layer ${ranks} krait_layer)
endforeach()
krait_example_test(doc_snippets 1 krait_doc_snippets)
krait_example_test(doc_snippets 3 krait_doc_snippets)
add_test(NAME example.doc_blocks_are_compiled
         COMMAND ${CMAKE_COMMAND} -DROOT=${CMAKE_CURRENT_LIST_DIR}/.. -P ${CMAKE_CURRENT_LIST_DIR}/docs/expect_snippets.cmake)
set_tests_properties(example.doc_blocks_are_compiled PROPERTIES LABELS example)

if(TARGET krait_genome)
  foreach(ranks 1 2 3 4)
    krait_example_test(genome ${ranks} krait_genome --synthetic 3000)
  endforeach()
  krait_example_test(genome_contiguous 2 krait_genome --synthetic 700 --layers 1 --layout contiguous)
  foreach(strategy hidden_parallel state_passing)
    krait_example_test(genome_${strategy} 4 krait_genome --synthetic 700 --layers 1 --strategy ${strategy})
  endforeach()
  krait_example_test(genome_more_ranks_than_tokens 4 krait_genome --synthetic 3 --layers 2)
  krait_example_test(genome_more_ranks_than_heads 9 krait_genome --synthetic 200 --layers 1)

  krait_example_command(command 2 krait_genome --help)
  if(command)
    add_test(NAME example.genome_help COMMAND ${command})
    krait_example_properties(example.genome_help 2)
    set_tests_properties(example.genome_help PROPERTIES PASS_REGULAR_EXPRESSION "usage: mpirun"
                                                        FAIL_REGULAR_EXPRESSION "usage: .*usage: ;[kK]okkos")
  endif()

  # Peak memory of four ranks beside one, at two lengths: what grows with the length must be divided.
  krait_example_command(command 4 krait_genome --synthetic 3000)
  if(command)
    add_test(NAME example.genome_memory
             COMMAND ${CMAKE_COMMAND} "-DCOMMAND=${command}" -P ${CMAKE_CURRENT_LIST_DIR}/expect_memory.cmake)
    krait_example_properties(example.genome_memory 4)
  endif()

  krait_example_command(command 4 krait_genome --synthetic 3000 --no-check --strategy state_passing)
  if(command)
    add_test(NAME example.genome_traffic
             COMMAND ${CMAKE_COMMAND} "-DCOMMAND=${command}" -P ${CMAKE_CURRENT_LIST_DIR}/expect_traffic.cmake)
    krait_example_properties(example.genome_traffic 4)
  endif()

  set(bad ${CMAKE_CURRENT_BINARY_DIR}/bad_input)
  file(MAKE_DIRECTORY ${bad})
  file(WRITE ${bad}/empty.fa "")
  file(WRITE ${bad}/header_only.fa ">a sequence that is not there\n")
  file(WRITE ${bad}/no_bases.fa ">p\nACGT\nACJT\n")
  file(WRITE ${bad}/no_header.fa "ACGT\n")
  string(REPEAT "ACGTTGCAAC\n" 500 bases)
  file(WRITE ${bad}/whole.fa ">p\n${bases}")
  file(ARCHIVE_CREATE OUTPUT ${bad}/whole.fa.gz PATHS ${bad}/whole.fa FORMAT raw COMPRESSION GZip)
  execute_process(COMMAND head -c 60 ${bad}/whole.fa.gz OUTPUT_FILE ${bad}/cut.fa.gz COMMAND_ERROR_IS_FATAL ANY)
  krait_example_test(genome_gzip 2 krait_genome --fasta ${bad}/whole.fa.gz --layers 1)
  krait_example_refusal(truncated "cut.fa.gz': the gzip data end before their end mark: the file is truncated"
                        krait_genome --fasta ${bad}/cut.fa.gz)
  krait_example_refusal(missing "cannot read '${bad}/none.fa': No such file" krait_genome --fasta ${bad}/none.fa)
  krait_example_refusal(empty "empty.fa': the file is empty" krait_genome --fasta ${bad}/empty.fa)
  krait_example_refusal(header_only "line 1: the record 'a sequence that is not there' has a header and no bases"
                        krait_genome --fasta ${bad}/header_only.fa)
  krait_example_refusal(letters "line 3, column 3: 'J' is not a base" krait_genome --fasta ${bad}/no_bases.fa)
  krait_example_refusal(no_header "line 1, column 1: expected a header line" krait_genome --fasta ${bad}/no_header.fa)
  krait_example_refusal(binary "is a binary file, not FASTA" krait_genome --fasta $<TARGET_FILE:krait_genome>)
  krait_example_refusal(option "unknown option '--lenght'" krait_genome --lenght 5)
  krait_example_refusal(value "--length takes a whole number of at least 1, got '-5'" krait_genome --length -5)
  krait_example_refusal(strategy "--strategy takes one of both, hidden_parallel, state_passing, got 'local'" krait_genome
                        --strategy local)
  krait_example_refusal(d_model "must be a multiple of" krait_genome --synthetic 100 --d-model 48)
endif()

if(TARGET krait_genome_train)
  set(train ${CMAKE_CURRENT_BINARY_DIR}/train)
  file(MAKE_DIRECTORY ${train})
  set(tiny --d-model 16 --d-state 8 --layers 1)
  foreach(ranks 1 2 3 4)
    krait_example_test(genome_train ${ranks} krait_genome_train --synthetic 500 --steps 8 ${tiny}
                       --csv ${train}/ranks${ranks}.csv)
  endforeach()
  foreach(strategy hidden_parallel state_passing)
    krait_example_test(genome_train_${strategy} 4 krait_genome_train --synthetic 500 --steps 8 ${tiny}
                       --strategy ${strategy} --csv ${train}/${strategy}.csv)
  endforeach()
  krait_example_test(genome_train_contiguous 2 krait_genome_train --synthetic 300 --steps 4 ${tiny} --quiet
                     --layout contiguous --csv ${train}/contiguous.csv)
  krait_example_test(genome_train_more_ranks_than_tokens 4 krait_genome_train --synthetic 3 --steps 8 ${tiny}
                     --csv ${train}/three.csv)
  krait_example_test(genome_train_more_ranks_than_heads 9 krait_genome_train --synthetic 200 --steps 4 ${tiny}
                     --csv ${train}/nine.csv)

  foreach(ranks 1 3)
    krait_example_command(command ${ranks} krait_genome_train --synthetic 300 --steps 12 ${tiny} --quiet)
    if(command)
      add_test(NAME example.genome_train_resumed.ranks${ranks}
               COMMAND ${CMAKE_COMMAND} "-DCOMMAND=${command}" -DFOLDER=${train}/resumed${ranks}
                       -P ${CMAKE_CURRENT_LIST_DIR}/expect_resumed.cmake)
      krait_example_properties(example.genome_train_resumed.ranks${ranks} ${ranks})
    endif()
  endforeach()

  # A training step on four ranks beside one.
  set(arguments --synthetic 3000 --steps 2 --d-model 32)
  krait_example_command(alone 1 krait_genome_train ${arguments} --csv ${train}/memory1.csv)
  foreach(strategy hidden_parallel state_passing)
    krait_example_command(command 4 krait_genome_train ${arguments} --strategy ${strategy}
                          --csv ${train}/memory_${strategy}.csv)
    if(command)
      add_test(NAME example.genome_train_memory_${strategy}
               COMMAND ${CMAKE_COMMAND} "-DCOMMAND=${command}" "-DALONE=${alone}"
                       -P ${CMAKE_CURRENT_LIST_DIR}/expect_memory.cmake)
      krait_example_properties(example.genome_train_memory_${strategy} 4)
    endif()
  endforeach()

  # A good checkpoint, for the refusals of bad ones.
  krait_example_command(command 1 krait_genome_train --synthetic 100 --steps 2 ${tiny} --csv ${train}/good.csv
                        --save ${train}/good.bin)
  add_test(NAME example.genome_train_saves COMMAND ${command})
  krait_example_properties(example.genome_train_saves 1)
  set_tests_properties(example.genome_train_saves PROPERTIES FIXTURES_SETUP checkpoint)
  file(WRITE ${train}/cut.bin "KRAITGEN and nothing else")
  file(WRITE ${train}/other.bin ">p\nACGT\n")
  set(on ${tiny} --synthetic 100 --csv ${train}/refused.csv)
  krait_example_refusal(train_missing "cannot read the checkpoint '${train}/none.bin': No such file" krait_genome_train
                        ${on} --resume ${train}/none.bin)
  krait_example_refusal(train_truncated "cut.bin': the file is truncated: 25 bytes" krait_genome_train
                        ${on} --resume ${train}/cut.bin)
  krait_example_refusal(train_no_checkpoint "other.bin': it does not begin with KRAITGEN" krait_genome_train
                        ${on} --resume ${train}/other.bin)
  krait_example_refusal(train_other_model
                        "good.bin' is of a model of 1 layer of d_model 16, d_state 8; the options ask for 2 layers"
                        krait_genome_train ${on} --layers 2 --resume ${train}/good.bin)
  krait_example_refusal(train_nothing_left "good.bin' has done 2 steps, and the options ask for 2" krait_genome_train
                        ${on} --steps 2 --resume ${train}/good.bin)
  set_tests_properties(example.refuses.train_other_model example.refuses.train_nothing_left
                       PROPERTIES FIXTURES_REQUIRED checkpoint)
  krait_example_refusal(train_save "cannot write '/no/such/folder/a.bin" krait_genome_train ${on}
                        --save /no/such/folder/a.bin)
  krait_example_refusal(train_csv "cannot write '/no/such/folder/a.csv': No such file" krait_genome_train
                        --synthetic 100 ${tiny} --csv /no/such/folder/a.csv)
  krait_example_refusal(train_option "unknown option '--learning-rate'" krait_genome_train --learning-rate 1)
  krait_example_refusal(train_value "--lr takes a number above 0 and at most 1, got 'high'" krait_genome_train --lr high)
  krait_example_refusal(train_one_base "at least 2 bases" krait_genome_train ${on} --length 1)
  krait_example_refusal(train_loss_rises "the loss did not fall" krait_genome_train ${on} --steps 2 --lr 1)
endif()
