#!/bin/bash
# All tests of the workspace, then what they skipped: a skipped test must not look like a passed one.
set -uo pipefail
cd "$(dirname "$0")/.."

skipped=$PWD/target/skipped-tests.txt
mkdir -p target && rm -f "$skipped"
LANDBRIDGE_SKIPPED_TESTS=$skipped "${CARGO:-cargo}" test --workspace --locked --no-fail-fast
status=$?
if [[ -s $skipped ]]; then
  echo
  echo "SKIPPED (did not run here):"
  sort -u "$skipped" | sed 's/^/  - /'
fi
exit $status
