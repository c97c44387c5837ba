#!/bin/bash
# Builds programs of one of the tests' Go modules into .deps/NAME-HASH/; quick when they are there.
#   go-build.sh NAME MODULE MINUTES PACKAGE...       LDFLAGS: of the linker
# The folder's name is a hash of the module's own files (xds_tests::kubernetes::binaries computes the same).
set -euo pipefail
cd "$(dirname "$0")/.."
say() { echo "setup: $*"; }

name=$1 module=$2 minutes=$3
shift 3
sources=(go.mod go.sum) programs=()
for package in "$@"; do
  [[ $package == ./* ]] && sources+=("${package#./}/main.go")
  programs+=("$(basename "$package")")
done
hash=$(cd "$module" && cat "${sources[@]}" | sha256sum | cut -c 1-16)
home=.deps/$name-$hash
mkdir -p .deps
# Two builds at a time would take twice as long each: the second waits and finds the first one's.
exec 9>".deps/$name.lock"
flock 9
there() {
  local program
  for program in "${programs[@]}"; do [[ -x $1/$program ]] || return 1; done
}
there "$home" && exit

if ! command -v go >/dev/null 2>&1; then
  say "NO GO HERE: it builds ${programs[*]} for the tests with real Kubernetes API servers and \`make playground\`; install Go 1.25 or newer (apt-get install golang-go, where that is new enough)"
  exit 1
fi
say "building ${programs[*]} into $home: about $minutes minutes on two cores the first time, then never again"
began=$SECONDS
trap 'rm -rf "$home.part"' EXIT
rm -rf "$home.part" && mkdir "$home.part"
if ! (
  cd "$module"
  export CGO_ENABLED=0 GOFLAGS='-mod=readonly -buildvcs=false -trimpath'
  nice -n 10 go build -o "../../$home.part/" -ldflags="-s -w ${LDFLAGS:-}" "$@"
); then
  say "COULD NOT BUILD ${programs[*]} (see above; $(go version))"
  exit 1
fi
mv "$home.part" "$home"
say "built them in $((SECONDS - began)) s"
