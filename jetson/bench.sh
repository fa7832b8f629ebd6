#!/usr/bin/env bash
# Measure engines on a Jetson: latency, watts, millijoules a frame, with clocks and temperatures beside them.
# Everything is in bench.py; this finds the environment that setup.sh made, or takes the one in PYTHON.
set -euo pipefail

here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-$(dirname -- "$here")/.venv-jetson/bin/python}
if [[ ! -x $python ]]; then
  printf 'error: no Python with edgeseg: got %s. Run jetson/setup.sh, or say which: PYTHON=VENV/bin/python %s ...\n' \
    "$python" "$0" >&2
  exit 2
fi
exec "$python" "$here/bench.py" "$@"
