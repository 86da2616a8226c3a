# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash disable=SC2154 # variables of tools/dev
# Format of all C++ files, shellcheck of the scripts, clang-tidy of the changed C++ files.

do_lint() {
  local status=0
  if [[ -z $flavour ]]; then flavour=openmp; fi
  enter
  [[ $flavour == native ]] || ensure_section "$flavour" lint
  check_format || status=1
  check_shell || status=1
  check_tidy || status=1
  ((status == 0)) || die "lint found something, see above" "tools/dev lint --fix repairs the format"
  say "lint: ok"
}

# The version that the root has, or what a machine calls it
# shellcheck disable=SC2016 # expanded inside
clang_tool() { inside -- sh -c 'command -v "$0-19" || command -v "$0"' "$1" || die "there is no $1 here; try --flavour openmp"; }

cxx_files() { git -C "$checkout" ls-files '*.cpp' '*.hpp' '*.h' '*.hpp.in' '*.cu' '*.cuh'; }

check_format() {
  local tool
  local -a mode=(--dry-run --Werror) files
  [[ -e $checkout/.clang-format ]] || { say "-- format: no .clang-format, skipped" && return 0; }
  tool=$(clang_tool clang-format) || return 1
  # templates of CMake are no C++ before their names are filled in
  mapfile -t files < <(cxx_files | grep -v '\.in$')
  [[ $fix == no ]] || mode=(-i)
  say "-- clang-format: ${#files[@]} files"
  ((${#files[@]} == 0)) && return 0
  # one line per file is enough: the repair is automatic
  (cd "$checkout" && inside -- "$tool" "${mode[@]}" "${files[@]}") 2>&1 |
    awk -F: '/-Wclang-format-violations/ { places[$1]++; next } /^[^ ].*: error:/ { print }
             END { for (file in places) printf "   %s: %d places to format\n", file, places[file] }' | sort >&2
}

check_shell() {
  local tool
  tool=$(inside -- sh -c 'command -v shellcheck || true')
  [[ -n $tool ]] || { say "-- shellcheck: not installed, skipped" && return 0; }
  say "-- shellcheck"
  (cd "$checkout" && inside -- "$tool" -x -P SCRIPTDIR .ci/run tools/dev tools/lib/gate_compile tools/lib/bundle_run tools/lib/*.sh) >&2
}

# The commit that the changes are counted from: the given one, the main branch, or the last commit.
lint_base() {
  local candidate
  for candidate in "$base" origin/main HEAD~1; do
    [[ -n $candidate ]] || continue
    # on the main branch itself there is nothing between it and HEAD
    [[ $candidate != "$base" && $(git -C "$checkout" rev-parse -q --verify "$candidate" 2>/dev/null) == "$(git -C "$checkout" rev-parse HEAD)" ]] && continue
    git -C "$checkout" merge-base "$candidate" HEAD 2>/dev/null && return
    [[ $candidate != "$base" ]] || die "--base '$base' names no commit"
  done
}

changed_files() {
  local from
  from=$(lint_base)
  if [[ $all == yes || -z $from ]]; then cxx_files && return; fi
  # committed since then, not committed yet, and new
  { git -C "$checkout" diff --name-only --diff-filter=d "$from" -- && git -C "$checkout" ls-files --others --exclude-standard; } | sort -u
}

# clang-tidy reads source files of the build; a changed header is read through the source or test of the same name.
tidy_units() {
  local file stem
  while read -r file; do
    case $file in
    *.cpp) printf '%s\n' "$file" ;;
    *.hpp)
      stem=$(basename "${file%.hpp}")
      git -C "$checkout" ls-files "${file%.hpp}.cpp" "unit_tests/*/test_$stem.cpp"
      ;;
    esac
  done < <(changed_files) | sort -u | while read -r file; do
    grep -qF "\"file\": \"$checkout/$file\"" "$build_dir/compile_commands.json" && printf '%s\n' "$file"
  done || true
}

check_tidy() {
  local tool
  local -a units
  [[ -e $checkout/.clang-tidy ]] || { say "-- clang-tidy: no .clang-tidy, skipped" && return 0; }
  lock_build
  configure
  unlock_build
  mapfile -t units < <(tidy_units)
  ((${#units[@]} > 0)) || { say "-- clang-tidy: no changed source files" && return 0; }
  tool=$(clang_tool clang-tidy) || return 1
  say "-- clang-tidy: ${#units[@]} files"
  # The flags of the build are g++'s; clang need not know all of them.
  (cd "$checkout" && printf '%s\0' "${units[@]}" |
    inside -- xargs -0 -n 1 -P "$(compile_jobs)" "$tool" -p "$build_dir" --quiet --extra-arg=-Wno-unknown-warning-option --warnings-as-errors='*') 2>&1 |
    { grep -vE '^[0-9]+ warnings? (generated|treated)|^Suppressed|^Use -header-filter' || true; }
}
