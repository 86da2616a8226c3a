# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash disable=SC2154 # variables of tools/dev
# The flavour 'native': the Kokkos and MPI that CMake finds on this machine.

native_generator() { if command -v ninja >/dev/null; then echo -GNinja; fi; }

# Asks CMake itself, so that Kokkos_ROOT, CMAKE_PREFIX_PATH, CXX and modules count as they will count in the build.
native_is_suitable() {
  command -v cmake >/dev/null || return 1
  local probe status=0
  probe=$(mktemp -d)
  cat >"$probe/CMakeLists.txt" <<'END'
cmake_minimum_required(VERSION 3.25)
project(KraitProbe LANGUAGES CXX)
find_package(Kokkos 4.6...<6 REQUIRED CONFIG)
find_package(MPI REQUIRED COMPONENTS CXX)
END
  # shellcheck disable=SC2046 # one word or none
  cmake $(native_generator) -S "$probe" -B "$probe/build" >"$probe/log" 2>&1 || status=1
  [[ ! -e $probe/log ]] || cp "$probe/log" "$logs/native-probe.log"
  rm -rf "$probe"
  return "$status"
}
