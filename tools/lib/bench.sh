# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash disable=SC2154 # variables of tools/dev
# Runs the Google Benchmark programs of perf_tests.

do_bench() {
  local filter=${words[0]:-.} program results n=0
  local -a documents=() programs=()
  ((${#words[@]} < 2)) || die "bench takes one filter; options of the benchmark programs go after --"
  enter
  build
  # One process: let its threads have the cores.
  prefer OMP_PROC_BIND spread
  prefer OMP_PLACES threads
  results=$(mktemp -d "$build_dir/bench.XXXXXX")
  mapfile -t programs < <(
    find "$build_dir/perf_tests" -name CMakeFiles -prune -o -type f -perm -u+x ! -name '*.so*' -print 2>/dev/null | sort)
  for program in "${programs[@]}"; do
    [[ -n $(inside -- "$program" --benchmark_list_tests "--benchmark_filter=$filter" 2>/dev/null) ]] || continue
    n=$((n + 1))
    say "-- ${program##*/}"
    inside -- "$program" "--benchmark_filter=$filter" "--benchmark_out=$results/$n.json" --benchmark_out_format=json "${extra[@]}" ||
      die "the benchmark program ${program##*/} failed"
    documents+=("$results/$n.json")
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
