#!/bin/bash
# Builds a real kube-apiserver (with etcd inside) and kubectl for the tests and the playground into .deps/; quick when they are there.
set -euo pipefail
cd "$(dirname "$0")/.."

module=xds-tests/kubernetes
version=$(awk '$1 == "k8s.io/kubernetes" { print $2 }' $module/go.mod)
IFS=. read -r major minor _ <<<"${version#v}"
# Without its version the server calls itself v0.0.0, which clients take for an ancient one.
named=k8s.io/component-base/version
export LDFLAGS="-X $named.gitVersion=$version -X $named.gitMajor=$major -X $named.gitMinor=$minor"
scripts/go-build.sh kubernetes $module 7 ./kube-apiserver ./kubectl
