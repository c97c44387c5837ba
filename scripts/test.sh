#!/bin/bash
# All tests of the workspace, or those that `cargo test` arguments name; then what they skipped: a skipped test must not
# look like a passed one.
set -uo pipefail
cd "$(dirname "$0")/.."

skipped=$PWD/target/skipped-tests.txt
mkdir -p target && rm -f "$skipped"
LANDBRIDGE_SKIPPED_TESTS=$skipped "${CARGO:-cargo}" test --locked --no-fail-fast "${@:---workspace}"
status=$?
if [[ -s $skipped ]]; then
  echo
  echo "SKIPPED (did not run here):"
  sort -u "$skipped" | sed 's/^/  - /'
fi
exit $status
