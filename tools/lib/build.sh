# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash disable=SC2154 # variables of tools/dev
# Choosing and entering a flavour, configuring and building, and the environment that programs run in.

tuning=() # NAME=VALUE settings of the current command

cores() { nproc; }

# Template-heavy units take up to 2 GiB each.
compile_jobs() {
  local by_memory
  by_memory=$(awk '/^MemAvailable:/ { print int($2 / 2097152) }' /proc/meminfo)
  [[ -n $jobs ]] && { echo "$jobs" && return; }
  echo $((by_memory < 1 ? 1 : by_memory < $(cores) ? by_memory : $(cores)))
}

choose_flavour() {
  [[ -n $flavour ]] && return 0
  if native_is_suitable; then
    flavour=native
    say "-- flavour native: this machine has a suitable Kokkos and MPI"
  else
    flavour=openmp
  fi
}

# Makes the flavour usable; everything else comes after it.
enter() {
  choose_flavour
  if [[ $flavour == native ]]; then
    command -v cmake >/dev/null || die "the flavour native needs cmake (tools/dev recipe)"
  else
    ensure_root "$flavour"
  fi
  [[ -n $build_dir ]] || {
    build_dir=build/$flavour
    [[ $build_type == Release ]] || build_dir+=-${build_type,,}
  }
  [[ $build_dir == /* ]] || build_dir=$checkout/$build_dir
  environment_of_flavour
}

# OpenBLAS does not recognise some virtual machines and then falls back to its oldest, five times slower, kernels.
# Naming the kernels by what the processor can do costs nothing where it would have been right anyway.
blas_kernels() {
  local flags
  flags=$(grep -m 1 '^flags' /proc/cpuinfo 2>/dev/null) || return 0
  case " $flags " in
  *' avx512f '*) echo SkylakeX ;;
  *' avx2 '*) echo Haswell ;;
  esac
}

prefer() { [[ -n ${!1:-} ]] || tuning+=("$1=$2"); } # the user's own setting wins

environment_of_flavour() {
  local kernels
  tuning=(PATH="$(program_folders)")
  # More ranks than cores are normal here, also as root in a container.
  prefer OMPI_ALLOW_RUN_AS_ROOT 1
  prefer OMPI_ALLOW_RUN_AS_ROOT_CONFIRM 1
  prefer PRTE_MCA_rmaps_default_mapping_policy :oversubscribe
  prefer OMP_PROC_BIND false
  [[ $flavour == native ]] && return 0
  # One machine, no network: without this Open MPI looks for interconnects.
  prefer OMPI_MCA_btl self,sm
  kernels=$(blas_kernels)
  [[ -z $kernels ]] || prefer OPENBLAS_CORETYPE "$kernels"
  # A rank of Serial is one thread. Threads of OpenBLAS beside it make small products ten times slower.
  [[ $flavour != kernels ]] || prefer OPENBLAS_NUM_THREADS 1
  tuning+=(CCACHE_DIR="$ccache_dir" CCACHE_BASEDIR="$checkout" CCACHE_NOHASHDIR=1)
  # git refuses a checkout that seems to belong to someone else, which it does in a user namespace
  tuning+=(GIT_CONFIG_COUNT=1 GIT_CONFIG_KEY_0=safe.directory GIT_CONFIG_VALUE_0="$checkout")
}

# tune_for_ranks N : share the cores between N ranks
tune_for_ranks() {
  local threads=$(($(cores) / $1))
  prefer OMP_NUM_THREADS $((threads < 1 ? 1 : threads))
  # Kokkos would warn about more threads than cores, once per rank.
  (($1 <= $(cores))) || prefer KOKKOS_DISABLE_WARNINGS 1
}

# The number of ranks in an mpirun command line
ranks_in() {
  while (($# > 1)); do
    case $1 in -n | -np | -c | --np) [[ $2 =~ ^[0-9]+$ ]] && echo "$2" && return ;; esac
    shift
  done
  cores
}

# Every folder of the build that holds a program, as a search path
program_folders() {
  [[ -d $build_dir ]] || { echo "$build_dir" && return; }
  find "$build_dir" -name CMakeFiles -prune -o -type f -perm -u+x ! -name '*.so*' -printf '%h\n' | sort -u | paste -sd:
}

# inside [NAME=VALUE...] -- CMD...
inside() {
  local -a more=()
  while [[ $1 != -- ]]; do more+=("$1") && shift; done
  shift
  if [[ $flavour != native ]]; then
    in_root "$flavour" "${tuning[@]}" "${more[@]}" -- "$@"
  else
    local -a native=("${tuning[@]}" "${more[@]}")
    native[0]="${native[0]}:$PATH"
    env "${native[@]}" "$@"
  fi
}

mpi_run() {
  local n=$1
  shift
  # --oversubscribe is Open MPI's older spelling; other MPIs allow it anyway
  if [[ $flavour == native ]] && mpirun --version 2>/dev/null | grep -q 'Open MPI'; then
    inside -- mpirun --oversubscribe -n "$n" "$@"
  else
    inside -- mpirun -n "$n" "$@"
  fi
}

cmake_settings() {
  printf '%s\n' "-DCMAKE_BUILD_TYPE=$build_type" -DCMAKE_EXPORT_COMPILE_COMMANDS=ON \
    -DKrait_ENABLE_TESTS=ON -DKrait_ENABLE_PERF_TESTS=ON -DKrait_ENABLE_EXAMPLES=ON
  if [[ $flavour == native ]]; then
    command -v ccache >/dev/null && printf '%s\n' -DCMAKE_CXX_COMPILER_LAUNCHER=ccache
  else
    printf '%s\n' -DCMAKE_CXX_COMPILER_LAUNCHER=ccache
  fi
  [[ $flavour != kernels ]] || printf '%s\n' -DKrait_ENABLE_KOKKOS_KERNELS=ON
  [[ ${#defines[@]} -eq 0 ]] || printf '%s\n' "${defines[@]}"
}

# CMake starts again only when the settings or the flavour changed; ninja starts it itself when its files did.
configure() {
  local -a settings generator=()
  local stamp=$build_dir/.krait-settings key
  mapfile -t settings < <(cmake_settings)
  key="$flavour $([[ $flavour == native ]] || root_key "$flavour") ${settings[*]}"
  [[ -e $build_dir/build.ninja || -e $build_dir/Makefile ]] && [[ -e $stamp && $(<"$stamp") == "$key" ]] && return 0
  mapfile -t generator < <(if [[ $flavour == native ]]; then native_generator; else echo -GNinja; fi)
  # Another generator or root cannot reuse the cache.
  [[ ! -e $stamp ]] || rm -rf "$build_dir/CMakeCache.txt" "$build_dir/CMakeFiles"
  step "configuring $build_dir" "$logs/configure.log" \
    inside -- cmake -S "$checkout" -B "$build_dir" "${generator[@]}" "${settings[@]}" ||
    die "CMake could not configure the build." "The log above says why. A clean start: tools/dev clean"
  printf '%s\n' "$key" >"$stamp"
}

lock_build() {
  mkdir -p "$build_dir"
  exec 8>"$build_dir/.krait-lock"
  flock -n 8 || { say "-- another tools/dev builds in $build_dir; waiting for it" && flock 8; }
}

unlock_build() { exec 8>&-; }

# build [TARGET...]
build() {
  local -a quiet=() targets=()
  (($# == 0)) || targets=(--target "$@")
  lock_build
  configure
  [[ -t 1 || ! -e $build_dir/build.ninja ]] || quiet=(-- --quiet)
  say "-- building ${*:-everything} in $build_dir"
  local start=$SECONDS
  inside -- cmake --build "$build_dir" --parallel "$(compile_jobs)" "${targets[@]}" "${quiet[@]}" 8>&- >&2 ||
    die "the build failed; the first error above says why." "Again: tools/dev build --flavour $flavour"
  say "   built in $((SECONDS - start)) s"
  unlock_build
  tuning[0]=PATH=$(program_folders) # the build has made new programs
}
