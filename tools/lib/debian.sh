#!/bin/sh
# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# The Debian side of Krait's build environments, shared by tools/dev (private root folders) and tools/Containerfile.
#
#   debian.sh packages SECTION...   the packages of these sections of tools/packages.txt, one a line
#   debian.sh suite FLAVOUR         the suite a flavour's Kokkos comes from
#   debian.sh prepare SUITE ROOT    let apt in ROOT see that suite too, but take nothing except Kokkos from it
#   debian.sh repair ROOT           complete the CMake packages of Kokkos and Kokkos Kernels in ROOT
#
# ROOT is / in a container.
set -eu

list=$(dirname -- "$0")/../packages.txt

packages() {
  for section in "$@"; do
    awk -v want="$section" '
      /^\[/      { on = (substr($1, 2) == want || $1 == "[" want "]"); seen += on; next }
      /^#|^ *$/  { next }
      on         { print $1 }
      END        { exit !seen }' "$list" || { echo "debian.sh: no section '$section' in $list" >&2; exit 1; }
  done
}

suite() {
  awk -v want="[$1" '$1 == want && $2 == "from" { sub(/\]/, "", $3); print $3 }' "$list"
}

# Reads nothing from the checkout: tools/dev hands this file's text to mmdebstrap, which may run it as another user.
prepare() {
  extra=$1
  apt=${2%/}/etc/apt
  mkdir -p "$apt/sources.list.d" "$apt/preferences.d" "$apt/apt.conf.d"
  # The machine's own mirror serves the other suites as well: repeat its entries under another suite name.
  if [ -s "$apt/sources.list" ]; then
    sed -n "s/ trixie / $extra /p" "$apt/sources.list" >"$apt/sources.list.d/krait-$extra.list"
  else
    awk -v RS= -v extra="$extra" '/Suites:[^\n]*trixie( |\n|$)/ { sub(/Suites:[^\n]*/, "Suites: " extra); print; exit }' \
      "$apt"/sources.list.d/debian.sources >"$apt/sources.list.d/krait-$extra.sources"
  fi
  cat >"$apt/preferences.d/krait" <<END
Package: *
Pin: release a=$extra
Pin-Priority: 100

Package: libkokkos* libtrilinos*
Pin: release a=$extra
Pin-Priority: 600
END
  # Mirrors refresh the moving suites at their own pace; signatures are still checked, only the age is not.
  echo 'Acquire::Check-Valid-Until "false";' >"$apt/apt.conf.d/90krait"
}

# libkokkos-dev names two libraries in its CMake files that it does not ship, because they are header-only:
# an empty archive satisfies the check.
repair_kokkos() {
  grep -rhoE '_IMPORT_PREFIX}[^"]*/libkokkos[a-z]*\.a' "$1"/usr/lib/*/cmake/Kokkos 2>/dev/null | sort -u |
    while read -r name; do
      archive=$1/usr${name#_IMPORT_PREFIX\}}
      # the magic string alone is a valid archive without members
      [ -e "$archive" ] || printf '!<arch>\n' >"$archive"
    done
}

# The Kokkos Kernels of Trilinos includes two CMake files that no package ships, and has no version file.
repair_kernels() {
  for cmake in "$1"/usr/lib/*/cmake; do
    [ -d "$cmake/KokkosKernels" ] || continue
    for library in BLAS LAPACK; do
      file=$cmake/trilinos_external_packages/$library/${library}Config.cmake
      [ -e "$file" ] && continue
      mkdir -p "$(dirname "$file")"
      cat >"$file" <<END
if(NOT TARGET $library::all_libs)
  add_library($library::all_libs INTERFACE IMPORTED)
  target_link_libraries($library::all_libs INTERFACE $(echo "$library" | tr '[:upper:]' '[:lower:]'))
endif()
END
    done
    # Trilinos releases both together under one version
    [ -e "$cmake/KokkosKernels/KokkosKernelsConfigVersion.cmake" ] ||
      cp "$cmake/Kokkos/KokkosConfigVersion.cmake" "$cmake/KokkosKernels/KokkosKernelsConfigVersion.cmake"
  done
}

command=$1
shift
case $command in
packages) packages "$@" ;;
suite) suite "$@" ;;
prepare) prepare "$@" ;;
repair) repair_kokkos "${1%/}" && repair_kernels "${1%/}" ;;
*) echo "debian.sh: unknown command '$command'" >&2 && exit 2 ;;
esac
