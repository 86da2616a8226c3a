# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash disable=SC2154 # variables of tools/dev
# The CUDA gate: every kernel compiled to machine code, without a GPU and without a CUDA build of Kokkos.

# Kernels on the path that every token takes. They must live in registers, and keep to tools/lib/gate_budget.
hot_kernels='scan|conv'

do_gate() {
  local -a sources=("${words[@]}" "${extra[@]}")
  local work
  if [[ -z $(cuda_folder) ]]; then
    say "gate: no nvcc here, skipped (it takes the CUDA toolkit, but no GPU)"
    return 0
  fi
  # Only this root's Kokkos ships the CUDA headers in a build that they can be switched on in.
  [[ -z $flavour || $flavour == openmp ]] || die "the gate works with --flavour openmp only"
  flavour=openmp
  enter
  lock_build
  configure
  unlock_build
  if ((${#sources[@]} == 0)); then mapfile -t sources < <(kernel_files); fi
  ((${#sources[@]} > 0)) || { say "gate: there are no kernel files yet" && return 0; }
  work=$build_dir/gate
  mkdir -p "$work"
  say "-- compiling ${#sources[@]} files with nvcc (unchanged ones are taken from $work)"
  inside -- "$lib/gate_compile" "$work" "$build_dir/generated" "$(compile_jobs)" "$hot_kernels" "$accept" \
    "${sources[@]}"
}

# The files that this build compiles into the library, without the host-only pieces, whose vector instructions nvcc need
# not understand, and the reference, which is not meant for devices.
kernel_files() {
  local room
  # the large ones first, so that the last minute is not one file on one core
  for room in ops parallel layout mixer tile core comm; do
    (cd "$checkout" && find "src/krait/$room" -name '*.cpp' ! -path 'src/krait/tile/host/*' -printf '%s %p\n') 2>/dev/null |
      sort -rn | cut -d' ' -f2
  done | while read -r file; do
    ! grep -qF "\"file\": \"$checkout/$file\"" "$build_dir/compile_commands.json" || printf '%s\n' "$file"
  done
}
