#!/bin/bash
# Builds a real kube-apiserver (with etcd inside) and kubectl for the tests and the playground into .deps/; quick when they are there.
# The folder's name is a hash of the module (xds_tests::kubernetes::binaries computes the same).
set -euo pipefail
cd "$(dirname "$0")/.."
say() { echo "setup: $*"; }

module=xds-tests/kubernetes
hash=$(cd $module && cat go.mod go.sum kube-apiserver/main.go kubectl/main.go | sha256sum | cut -c 1-16)
home=.deps/kubernetes-$hash
mkdir -p .deps
# Two builds at a time would take twice as long each: the second waits and finds the first one's.
exec 9>.deps/kubernetes.lock
flock 9
[[ -x $home/kube-apiserver && -x $home/kubectl ]] && exit

if ! command -v go >/dev/null 2>&1; then
  say "NO GO HERE: it builds the real Kubernetes API server of the tests and of \`make playground\`; install Go 1.25 or newer (apt-get install golang-go, where that is new enough)"
  exit 1
fi
version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' $module/go.mod)
IFS=. read -r major minor _ <<<"${version#v}"
say "building kube-apiserver and kubectl $version into $home: about 7 minutes on two cores the first time, then never again"
# Without its version the server calls itself v0.0.0, which clients take for an ancient one.
named=k8s.io/component-base/version
began=$SECONDS
trap 'rm -rf "$home.part"' EXIT
rm -rf "$home.part" && mkdir "$home.part"
if ! (
  cd $module
  export CGO_ENABLED=0 GOFLAGS='-mod=readonly -buildvcs=false -trimpath'
  nice -n 10 go build -o "../../$home.part/" \
    -ldflags="-s -w -X $named.gitVersion=$version -X $named.gitMajor=$major -X $named.gitMinor=$minor" ./kube-apiserver ./kubectl
); then
  say "COULD NOT BUILD kube-apiserver and kubectl (see above; $(go version))"
  exit 1
fi
mv "$home.part" "$home"
say "built them in $((SECONDS - began)) s"
