# SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
# shellcheck shell=bash disable=SC2154 # variables of tools/dev
# Private Debian 13 roots: folders with compiler, MPI and Kokkos, made by mmdebstrap and entered by bubblewrap.
# Nothing outside these folders is written.

release=trixie
passed_environment='^(OMP|KOKKOS|KRAIT|OMPI|PRTE|PMIX|OPENBLAS|CTEST|GTEST|BENCHMARK|NCCL|ASAN|UBSAN)_|^(CI|TERM|CXXFLAGS)$'

root_of() { printf '%s/%s\n' "$roots" "$1"; }

# The key changes with the package list, so that an outdated root is made again.
root_key() {
  { "$lib/debian.sh" packages common demo "$1" && "$lib/debian.sh" suite "$1" && cat "$lib/debian.sh"; } | sha256sum | cut -c1-16
}

root_is_ready() { [[ -e $(root_of "$1")/.krait-ready && $(<"$(root_of "$1")/.krait-ready") == "$(root_key "$1")" ]]; }

native_recipe() {
  cat >&2 <<'END'

To build without a private root, install Kokkos 4.6 or newer (below 6), an MPI, CMake 3.25 and a C++20 compiler,
for example Kokkos from source, and then:

  cmake -S kokkos -B kokkos-build -DCMAKE_INSTALL_PREFIX=$HOME/kokkos -DCMAKE_BUILD_TYPE=Release \
        -DKokkos_ENABLE_OPENMP=ON -DKokkos_ARCH_NATIVE=ON        # for NVIDIA: -DKokkos_ENABLE_CUDA=ON
  cmake --build kokkos-build --target install -j

  export Kokkos_ROOT=$HOME/kokkos
  cmake -S . -B build/native -DCMAKE_BUILD_TYPE=Release
  cmake --build build/native -j 8    # as many as memory takes: a compile job needs up to 2 GiB
  ctest --test-dir build/native --output-on-failure

END
  say "Debian and Ubuntu packages for the rest:"
  say "  $("$lib/debian.sh" packages common | tr '\n' ' ')"
  say "With Kokkos_ROOT set, tools/dev finds this Kokkos by itself (--flavour native). tools/Containerfile is another way."
}

cannot() {
  say "tools/dev: a private Debian root cannot be made here: $1"
  native_recipe
  exit 1
}

# ---- what has to be on the machine ----

missing_tools() {
  local -a packages=()
  command -v mmdebstrap >/dev/null || packages+=(mmdebstrap)
  command -v bwrap >/dev/null || packages+=(bubblewrap)
  # Only Ubuntu and the like come without Debian's keys, and only plain users need newuidmap.
  [[ -e /usr/share/keyrings/debian-archive-keyring.gpg ]] || packages+=(debian-archive-keyring)
  ((EUID == 0)) || command -v newuidmap >/dev/null || packages+=(uidmap)
  printf '%s\n' "${packages[*]}"
}

apt_install_on_machine() {
  local -a sudo=()
  ((EUID == 0)) || sudo=(sudo)
  # The lists may be missing altogether in a container, or be too old.
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" ||
    { "${sudo[@]}" apt-get update && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }
}

ensure_tools() {
  local missing
  missing=$(missing_tools)
  [[ -n $missing ]] || return 0
  command -v apt-get >/dev/null || cannot "this machine has no apt, and these tools are missing: $missing"
  if ((EUID != 0)); then
    command -v sudo >/dev/null || cannot "these packages are missing and there is no sudo to install them: $missing"
    [[ -t 0 ]] || sudo -n true 2>/dev/null || cannot "these packages are missing and sudo asks for a password: $missing"
    say "Installing on this machine (and nothing else): $missing; sudo may ask for your password."
    sudo true || cannot "sudo refused"
  else
    say "Installing on this machine (and nothing else): $missing"
  fi
  # shellcheck disable=SC2086 # a list of package names
  step "apt-get install $missing" "$logs/apt.log" apt_install_on_machine $missing ||
    cannot "apt-get could not install $missing (log: $logs/apt.log)"
}

# Some containers allow user namespaces but no fresh /proc; a bound one does as well.
proc_mount=(--proc /proc)
choose_proc_mount() {
  bwrap --ro-bind / / --proc /proc true 2>/dev/null && return 0
  proc_mount=(--dev-bind /proc /proc)
  bwrap --ro-bind / / "${proc_mount[@]}" true 2>/dev/null
}

# ---- making a root ----

# The mirror the machine itself uses, if it is Debian's archive; nothing otherwise, and mmdebstrap then takes its default.
machine_mirror() {
  local uri
  command -v apt-get >/dev/null || return 0
  # shellcheck disable=SC2016 # apt expands this one
  uri=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 2>/dev/null |
    grep -E '^https?://' | head -n 1) || return 0
  # A mirror may hold the machine's own release only.
  if mirror_has "$uri" "$release" && mirror_has "$uri" "$1"; then printf '%s\n' "${uri%/}"; fi
}

mirror_has() {
  local probe
  probe=$(mktemp)
  /usr/lib/apt/apt-helper download-file "${1%/}/dists/$2/InRelease" "$probe" >/dev/null 2>&1
  local status=$?
  rm -f "$probe"
  return "$status"
}

# The machine's proxy settings, as options for the apt inside the root.
machine_apt_options() {
  command -v apt-config >/dev/null || return 0
  apt-config dump | grep -E '^Acquire::(https?::(Proxy|Verify|CaInfo)|Retries|ForceIPv)' || true
}

# Runs mmdebstrap into $1.part. As root it writes the folder itself; for a plain user it works in a user namespace and
# hands over a tar stream, because the files would otherwise belong to user ids that the user cannot remove.
bootstrap() {
  local root=$1 flavour=$2 mirror=$3 suite packages option
  local part=$root.part
  suite=$("$lib/debian.sh" suite "$flavour")
  packages=$("$lib/debian.sh" packages common demo "$flavour" | paste -sd,)
  local -a options=(
    --variant=apt --include="$packages"
    --aptopt='APT::Install-Recommends "false"' --aptopt='Acquire::Languages "none"'
    --aptopt='Acquire::Check-Valid-Until "false"' # see debian.sh
    --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*'
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/bowtie2*'
    --setup-hook="set -- prepare $suite \"\$1\"
$(<"$lib/debian.sh")"
  )
  while read -r option; do
    [[ -z $option ]] || options+=(--aptopt="$option")
  done < <(machine_apt_options)
  rm -rf --one-file-system "$part"
  mkdir -p "$part"
  # mmdebstrap wants a neutral locale and directory
  if ((EUID == 0)); then
    (cd / && LC_ALL=C mmdebstrap --mode=root "${options[@]}" "$release" "$part" ${mirror:+"$mirror"})
  else
    (cd / && LC_ALL=C mmdebstrap --mode=unshare --format=tar "${options[@]}" "$release" - ${mirror:+"$mirror"}) |
      tar -x -C "$part" --no-same-owner --exclude='./dev/*'
  fi
}

make_root() {
  local flavour=$1 root mirror suite
  root=$(root_of "$flavour")
  suite=$("$lib/debian.sh" suite "$flavour")
  [[ -d $root || -d $root.part ]] && say "-- the root '$flavour' is incomplete or outdated and is made again"
  mirror=${KRAIT_MIRROR:-$(machine_mirror "$suite")}
  step "Debian 13 root '$flavour' (once: about a minute, 1.3 GB below $roots)" "$logs/root-$flavour.log" \
    bootstrap "$root" "$flavour" "$mirror" ||
    die "the root '$flavour' could not be made." \
      "The log above says why; most often the Debian mirror cannot be reached." \
      "Mirror: ${mirror:-the default of mmdebstrap}. Choose another by KRAIT_MIRROR=URL, then run the same command again." \
      "NO_PUBKEY in the log: update the machine's package debian-archive-keyring." \
      "No user namespaces on this machine: 'tools/dev recipe' prints how to build without a root."
  "$lib/debian.sh" repair "$root.part"
  root_key "$flavour" >"$root.part/.krait-ready"
  rm -rf --one-file-system "$root"
  mv "$root.part" "$root"
}

ensure_root() {
  local flavour=$1
  ensure_tools
  choose_proc_mount || cannot "bubblewrap may not make a user namespace on this machine"
  root_is_ready "$flavour" && return 0
  mkdir -p "$roots"
  (
    # mmdebstrap inherits the lock: if this script is killed, the next run waits until mmdebstrap has ended as well
    flock -n 9 || { say "-- another tools/dev is making the root '$flavour'; waiting for it" && flock 9; }
    root_is_ready "$flavour" || make_root "$flavour"
  ) 9>"$roots/.lock-$flavour" || exit 1
}

# ---- more packages for an existing root ----

ensure_section() {
  local flavour=$1 section=$2 root stamp packages
  root=$(root_of "$flavour")
  stamp=$root/.krait-$section
  packages=$("$lib/debian.sh" packages "$section" | paste -sd' ')
  [[ -e $stamp && $(<"$stamp") == "$packages" ]] && return 0
  (
    flock 9
    # shellcheck disable=SC2086 # a list of package names
    step "adding to the root '$flavour': $packages" "$logs/$section.log" root_apt "$root" $packages ||
      die "these packages could not be added to the root '$flavour': $packages" \
        "The log above says why; run the same command again when the mirror can be reached."
    printf '%s\n' "$packages" >"$stamp"
  ) 9>"$roots/.lock-$flavour" || exit 1
}

# In this small namespace there is no other user that apt could download as.
root_apt() {
  local root=$1
  local -a user=()
  shift
  ((EUID == 0)) || user=(--unshare-user --uid 0 --gid 0)
  # shellcheck disable=SC2016 # expanded by the shell inside
  bwrap "${user[@]}" --bind "$root" / --dev-bind /dev /dev "${proc_mount[@]}" --tmpfs /tmp \
    --ro-bind-try /etc/resolv.conf /etc/resolv.conf --ro-bind-try /etc/hosts /etc/hosts \
    --clearenv --setenv PATH /usr/sbin:/usr/bin:/sbin:/bin --setenv DEBIAN_FRONTEND noninteractive \
    sh -c 'chmod 1777 /tmp && apt-get "$0" update && apt-get "$0" install -y "$@" && apt-get clean' \
    -oAPT::Sandbox::User=root "$@"
}

# ---- entering ----

# The toolkit's real folder, or nothing. The nvcc on the path may be a script that calls another one, so nvcc is asked.
cuda_folder() {
  local nvcc bin
  nvcc=$(PATH="$PATH:${CUDA_HOME:-/usr/local/cuda}/bin:/usr/local/cuda/bin" command -v nvcc) || return 0
  bin=$("$nvcc" --dryrun -x cu -c /dev/null 2>&1 | sed -n 's/^#\$ _HERE_=//p')
  [[ -x $bin/nvcc ]] || return 0
  dirname "$(readlink -f "$bin")"
}

# in_root FLAVOUR NAME=VALUE... -- CMD... ; a PATH=... among them is put before the usual path
in_root() {
  local flavour=$1 root cuda folder name here=$PWD path=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin
  local -a args=() folders=()
  shift
  root=$(root_of "$flavour")
  cuda=$(cuda_folder)
  # The outer environment stays outside, but for what tunes a run.
  args=(--clearenv --setenv HOME /tmp --setenv TMPDIR /tmp --setenv LC_ALL C.UTF-8)
  for name in $(compgen -e | grep -E "$passed_environment"); do args+=(--setenv "$name" "${!name}"); done
  while [[ $1 != -- ]]; do
    if [[ $1 == PATH=* ]]; then path=${1#PATH=}:$path; else args+=(--setenv "${1%%=*}" "${1#*=}"); fi
    shift
  done
  shift
  args+=(--bind "$root" / --dev-bind /dev /dev "${proc_mount[@]}" --ro-bind /sys /sys --tmpfs /tmp)
  args+=(--ro-bind-try /etc/resolv.conf /etc/resolv.conf)
  # The toolkit appears at its real place and, as programs expect it, at its usual one. Its libraries are found by name:
  # CMake takes them for the compiler's own, and gives no program a path to them.
  if [[ -n $cuda ]]; then
    args+=(--ro-bind "$cuda" "$cuda" --ro-bind "$cuda" /usr/local/cuda --setenv LD_LIBRARY_PATH /usr/local/cuda/lib64)
    path+=:$cuda/bin
  fi
  IFS=: read -ra folders <<<"$checkout:$ccache_dir${KRAIT_BIND:+:$KRAIT_BIND}"
  for folder in "${folders[@]}"; do args+=(--bind "$folder" "$folder"); done
  [[ $here == "$checkout" || $here == "$checkout"/* ]] || here=$checkout
  bwrap "${args[@]}" --setenv PATH "$path" --chdir "$here" --die-with-parent -- "$@"
}
