# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash disable=SC2154 # variables of tools/dev
# Runs the Google Benchmark programs of perf_tests.

# run_benchmarks RANKS PROGRAM ARGUMENTS... : one process with all threads, or ranks of one thread each
run_benchmarks() {
  local on=$1
  shift
  if ((on == 1)); then
    inside -- "$@"
  else
    # Kokkos would warn about more threads than cores, once per rank
    ((on <= $(cores))) || prefer KOKKOS_DISABLE_WARNINGS 1
    # ranks that share cores must not all be bound to the first
    mpi_run "$on" env OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" OMP_PROC_BIND="${OMP_PROC_BIND:-false}" "$@"
  fi
}

do_bench() {
  local filter=${words[0]:-.} program results commit on counts n=0
  local -a documents=() programs=()
  ((${#words[@]} < 2)) || die "bench takes one filter; options of the benchmark programs go after --"
  enter
  build krait_benchmarks
  # One process: let its threads have the cores.
  prefer OMP_PROC_BIND spread
  prefer OMP_PLACES threads
  results=$(mktemp -d "$build_dir/bench.XXXXXX")
  mapfile -t programs < <(
    find "$build_dir/perf_tests" -name CMakeFiles -prune -o -type f -perm -u+x ! -name '*.so*' -print 2>/dev/null | sort)
  commit=$(git -C "$checkout" describe --always --dirty 2>/dev/null || echo unknown)
  for program in "${programs[@]}"; do
    counts=1
    # what ranks do together, on two and four of them if no other number is asked for
    [[ $program != *_ranks ]] || counts=$([[ $ranks == 4 ]] && echo 2 4 || echo "$ranks")
    for on in $counts; do
      [[ -n $(run_benchmarks "$on" "$program" --benchmark_list_tests "--benchmark_filter=$filter" 2>/dev/null) ]] || continue
      n=$((n + 1))
      say "-- ${program##*/}$( ((on == 1)) || echo " on $on ranks")"
      run_benchmarks "$on" "$program" "--benchmark_filter=$filter" "--benchmark_out=$results/$n.json" \
        --benchmark_out_format=json "--benchmark_context=commit=$commit" "${extra[@]}" ||
        die "the benchmark program ${program##*/} failed"
      documents+=("$results/$n.json")
    done
  done
  ((n > 0)) || die "no benchmark matches '$filter'"
  [[ -z $out ]] || { write_results "$out" "${documents[@]}" && say "-- results in $out"; }
  rm -rf "$results"
}

# write_results OUT DOCUMENT... : one document as it is, several as a JSON array
write_results() {
  local target=$1 separator='['
  shift
  (($# > 1)) || { cat "$1" >"$target" && return; }
  {
    for document in "$@"; do
      printf '%s\n' "$separator" && cat "$document"
      separator=','
    done
    printf ']\n'
  } >"$target"
}
