# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# krait/krait.hpp includes every public header, itself or through others. Public is what declares names of the
# namespace krait itself; what users should not touch is in krait::impl and other namespaces below.
#
# SOURCE: the folder that holds krait/
set(reached)
set(next krait/krait.hpp)
while(next)
  list(APPEND reached ${next})
  set(found)
  foreach(header IN LISTS next)
    file(STRINGS ${SOURCE}/${header} lines REGEX "^#include <krait/")
    list(TRANSFORM lines REPLACE "^#include <([^>]+)>.*" "\\1")
    list(APPEND found ${lines})
  endforeach()
  list(REMOVE_DUPLICATES found)
  list(REMOVE_ITEM found ${reached} krait/core/config.hpp) # the latter is written by CMake
  set(next ${found})
endwhile()

set(missing)
file(GLOB_RECURSE headers RELATIVE ${SOURCE} ${SOURCE}/krait/*.hpp)
list(REMOVE_ITEM headers ${reached})
foreach(header IN LISTS headers)
  file(STRINGS ${SOURCE}/${header} public REGEX "^namespace krait {")
  if(public)
    list(APPEND missing ${header})
  endif()
endforeach()
if(missing)
  list(JOIN missing "\n  " missing)
  message(FATAL_ERROR "krait/krait.hpp does not include these public headers:\n  ${missing}")
endif()
list(LENGTH reached count)
message("${count} headers come with krait/krait.hpp")
