# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash disable=SC2154 # variables of tools/dev
# One folder with everything that a machine with a CUDA device and nothing but its driver needs to test and measure Krait.

bundle_limit=60000000 # bytes

# The Kokkos to build with: a definition, or the environment.
cuda_kokkos() {
  local define
  for define in "${defines[@]}"; do
    [[ $define != -DKokkos_ROOT=* ]] || { realpath -- "${define#*=}" && return; }
  done
  [[ -z ${Kokkos_ROOT:-} ]] || realpath -- "$Kokkos_ROOT"
}

# The architecture of a Kokkos, as its package says; nothing where it has no CUDA.
cuda_architecture() {
  local config
  config=$(find "$1" -name KokkosConfigCommon.cmake | head -n 1)
  [[ -n $config ]] && sed -n 's/^ *set(Kokkos_CUDA_ARCHITECTURES \([0-9]*\).*/\1/p' "$config" | head -n 1
}

do_bundle() {
  local kokkos architecture folder size genome=/usr/share/doc/bowtie2/examples/reference/lambda_virus.fa.gz
  local -a data=()
  [[ $cuda == yes ]] || die "bundle takes --cuda: other devices have none yet"
  [[ -n $(cuda_folder) ]] || die "a bundle takes nvcc (a GPU is not needed)"
  kokkos=$(cuda_kokkos)
  [[ -n $kokkos ]] || die "a bundle takes a Kokkos with CUDA: set Kokkos_ROOT, or give -DKokkos_ROOT=FOLDER" \
    "Shared libraries keep the bundle small: build that Kokkos with -DBUILD_SHARED_LIBS=ON, and with" \
    "tools/dev shell's compiler unless --flavour native is given."
  architecture=$(cuda_architecture "$kokkos")
  [[ -n $architecture ]] || die "the Kokkos in $kokkos has no CUDA, or no architecture"
  [[ -n $flavour ]] || flavour=openmp
  [[ -n $build_dir ]] || build_dir=build/cuda
  folder=${out:-$checkout/build/krait-cuda-$architecture}
  # it is replaced by the new one
  [[ ! -e $folder || -f $folder/code.tar.gz || -z $(ls -A -- "$folder") ]] || die "$folder exists and is no bundle"
  KRAIT_BIND=$kokkos${KRAIT_BIND:+:$KRAIT_BIND}
  defines+=("-DKokkos_ROOT=$kokkos" -DBUILD_SHARED_LIBS=ON -DKrait_ENABLE_NCCL=ON -DKrait_ENABLE_MPI=ON
    -DKrait_ENABLE_COMMON_TESTS=OFF -DCMAKE_CXX_COMPILER_LAUNCHER=)
  [[ ! -x $kokkos/bin/nvcc_wrapper ]] || defines+=("-DCMAKE_CXX_COMPILER=$kokkos/bin/nvcc_wrapper")
  enter
  build
  say "-- collecting the bundle"
  ! inside -- test -e "$genome" || data=("$genome")
  rm -rf "$build_dir/bundle"
  inside -- python3 "$lib/bundle_collect" "$build_dir" "$build_dir/bundle" "$architecture" "${data[@]}" >&2 ||
    die "the bundle could not be collected"
  install -m 755 "$lib/bundle_run" "$build_dir/bundle/run"
  size=$(find "$build_dir/bundle" -type f -printf '%s\n' | awk '{ sum += $1 } END { print sum + 0 }')
  ((size <= bundle_limit)) || die "the bundle has $size bytes, more than $bundle_limit"
  rm -rf "$folder"
  mkdir -p "$(dirname "$folder")"
  mv "$build_dir/bundle" "$folder"
  say "-- $folder: copy it to the machine and start its 'run' there"
}
