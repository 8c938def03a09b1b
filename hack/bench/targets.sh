#!/usr/bin/env bash
# Measures the targets of performance on a quiet machine in about ten minutes; the first time, it builds the peers before:
#   bash hack/bench/targets.sh [BASELINE_COMMIT [OUTPUT_FOLDER]]
# BASELINE_COMMIT must be in this repository; by default the last commit before the controller wrote less.
set -uo pipefail
cd "$(git rev-parse --show-toplevel)"
baseline=${1:-61c395f}
output=${2:-$(mktemp -d)}
export PYTHONPATH=$PWD
python=.venv/bin/python
[ -x "$python" ] || make -s sync || exit 1
git rev-parse -q --verify "$baseline^{commit}" >/dev/null || { echo "no commit $baseline here: fetch the history" >&2; exit 1; }
echo "== prepare: control plane and peers"
$python -m hack.bench framework --objects 50 --runs 1 >"$output/prepare.txt" 2>&1 || { tail -5 "$output/prepare.txt"; exit 1; }
started=$(date +%s)
uptime | tee "$output/machine.txt"

step() { # step SECONDS NAME ARGUMENTS...: one benchmark, its table at the end of $output/NAME.txt
    local limit=$1 name=$2
    shift 2
    echo "== $name ($(($(date +%s) - started)) s)"
    timeout "$limit" $python -m hack.bench "$@" >"$output/$name.txt" 2>"$output/$name.err" || echo "   failed: $output/$name.err"
    grep -E '^(\||\*\*)' "$output/$name.txt"
}

step 150 workspaces-300 workspaces --count 300 --runs 2 --baseline "$baseline"
step 150 workspaces-1000 workspaces --count 1000 --runs 1 --baseline "$baseline"
step 30 requests-by-kind workspaces --count 50 --by-kind
step 130 provisioner-200 provisioner --count 200 --runs 1 --baseline "$baseline"
step 110 configmaps framework --objects 5000 --runs 3
step 60 sync sync --objects 20000 --runs 2
step 120 start start --runs 3
step 60 idle idle --runs 1 --seconds 20
step 90 growth growth --count 1000 5000
echo "== $(($(date +%s) - started)) s; everything is in $output"
