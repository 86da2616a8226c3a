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

# give_up RESULTS MESSAGE... : what was measured before stays
give_up() {
  local folder=$1
  shift
  ! grep -qs '"run_name"' "$folder"/*.json || die "$@" "what was measured is in $folder"
  rm -rf "$folder"
  die "$@"
}

# Whether FILE can be written; leaves it as it was.
is_writable() {
  local existed=no
  [[ ! -e $1 ]] || existed=yes
  (: >>"$1") 2>/dev/null || return 1
  [[ $existed == yes ]] || rm -f -- "$1"
}

do_bench() {
  local filter=${words[0]:-.} program results commit on counts n=0
  local -a options=() documents=() programs=()
  ((${#words[@]} < 2)) || die "bench takes one filter; options of the benchmark programs go after --"
  [[ " ${extra[*]}" != *" --benchmark_out"* ]] || die "bench writes the results with --out FILE, before --"
  [[ $ranks != 1 ]] || die "bench measures what 2 ranks or more do together, not 1"
  [[ -z $out ]] || is_writable "$out" || die "--out: '$out' cannot be written"
  enter
  build krait_benchmarks
  # One process: let its threads have the cores.
  prefer OMP_PROC_BIND spread
  prefer OMP_PLACES threads
  results=$(mktemp -d "$build_dir/bench.XXXXXX")
  mapfile -t programs < <(find "$build_dir/perf_tests" -name CMakeFiles -prune -o \
    -type f -perm -u+x ! -name '*.so*' ! -name '*_strategies' -print 2>/dev/null | sort)
  commit=$(git -C "$checkout" describe --always --dirty 2>/dev/null || echo unknown)
  # mpirun gives every rank a terminal, whatever its own output is
  [[ -t 1 ]] || options+=(--benchmark_color=false)
  options+=("--benchmark_filter=$filter" "--benchmark_context=commit=$commit" "${extra[@]}")
  for program in "${programs[@]}"; do
    counts=1
    # what ranks do together, on two and four of them if no other number is asked for
    [[ $program != *_ranks ]] || counts=${ranks:-2 4}
    for on in $counts; do
      [[ -n $(run_benchmarks "$on" "$program" "${options[@]}" --benchmark_list_tests 2>"$results/errors") ]] || {
        grep -q 'Failed to match any' "$results/errors" ||
          give_up "$results" "the benchmark program ${program##*/} failed" "$(grep -m 1 '[[:alnum:]]' "$results/errors")"
        continue
      }
      n=$((n + 1))
      say "-- ${program##*/}$( ((on == 1)) || echo " on $on ranks")"
      run_benchmarks "$on" "$program" "${options[@]}" "--benchmark_out=$results/$n.json" --benchmark_out_format=json ||
        give_up "$results" "the benchmark program ${program##*/} failed"
      # nothing is in it when benchmarks were only listed
      [[ ! -s $results/$n.json ]] || documents+=("$results/$n.json")
    done
  done
  ((n > 0)) || give_up "$results" "no benchmark matches '$filter'"
  [[ -z $out ]] || {
    ((${#documents[@]} > 0)) || give_up "$results" "there are no results to write to '$out'"
    write_results "$out" "${documents[@]}" || give_up "$results" "'$out' could not be written"
    say "-- results in $out"
  }
  rm -rf "$results"
}

# write_results OUT DOCUMENT... : one document as it is, several as a JSON array
write_results() {
  local target=$1 separator='[' document
  shift
  if (($# == 1)); then
    cat "$1"
  else
    for document in "$@"; do
      printf '%s\n' "$separator" && cat "$document" || return
      separator=','
    done
    printf ']\n'
  fi >"$target"
}
