#!/bin/bash
# Builds Helm for the tests of the charts into .deps/; quick when it is there.
set -euo pipefail
cd "$(dirname "$0")/.."

module=xds-tests/helm
version=$(awk '$1 == "helm.sh/helm/v4" { print $2 }' $module/go.mod)
export LDFLAGS="-X helm.sh/helm/v4/internal/version.version=$version"
scripts/go-build.sh helm $module 3 helm.sh/helm/v4/cmd/helm
