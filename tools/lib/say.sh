# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash disable=SC2154 # variables of tools/dev
# Talking to the user: steps with elapsed seconds, notes, and errors that say what to do next.

say() { printf '%s\n' "$*" >&2; }

# die MESSAGE... : one line per argument
die() {
  printf 'tools/dev: %s\n' "$1" >&2
  shift
  local line
  for line in "$@"; do printf '           %s\n' "$line" >&2; done
  exit 1
}

# step TITLE LOG CMD... : run CMD with its output in LOG, showing the seconds that pass
step() {
  local title=$1 log=$2 start=$SECONDS status=0 ticker=
  shift 2
  mkdir -p "$(dirname "$log")"
  if [[ -t 2 ]]; then
    (while :; do printf '\r-- %s ... %s s ' "$title" "$((SECONDS - start))" >&2 && sleep 1; done) &
    ticker=$!
  else
    printf -- '-- %s ... ' "$title" >&2
  fi
  "$@" >"$log" 2>&1 </dev/null || status=$?
  if [[ -n $ticker ]]; then
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    printf '\r-- %s ... ' "$title" >&2
  fi
  if ((status == 0)); then
    say "$((SECONDS - start)) s"
  else
    say "FAILED after $((SECONDS - start)) s"
    tail -n 15 "$log" | sed 's/^/   | /' >&2
    say "   the whole log: $log"
  fi
  return "$status"
}
