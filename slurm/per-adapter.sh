#!/bin/bash
# sbatch slurm/per-adapter.sh CONFIG [key.path=value ...]     one small Slurm job per adapter; this one, of one core, coordinates.
#
# For sites where K nodes at once never come free, and where compute nodes may submit jobs (else run the same on a login node:
# wfc run CONFIG cluster.backend=slurm). The configuration says what the jobs of the adapters ask for: cluster.*, cluster.slurm.*
#   WFC_PYTHON         Python that has wfc_dist, on every node              default: python
#   WFC_SETUP          shell lines before anything starts, such as "source /shared/venv/bin/activate"
#   WFC_MAX_REQUEUES   how often the coordinator puts itself back           default: 20
#
# Warning signal (USR1: before the time limit, or on preemption): the coordinator alone ends and is requeued. Its jobs train
# on, and the next coordinator finds them. A coordinator that ends with 75 by itself is requeued, too: nodes that are left out, a
# disk that is full, a lock that a crash has left. SIGTERM and `wfc stop`: every job checkpoints or leaves the queue.
#SBATCH --job-name=wfc-coordinator
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=1
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/wfc-coordinator-%j.out
#SBATCH --signal=B:USR1@60
# shellcheck disable=SC2317 # a function that a trap calls
set -u
restarts=${SLURM_RESTART_COUNT:-0} wfc='' again='' terminated=''
say() { echo "per-adapter.sh: $(date +%FT%T) $*"; }
[ -n "${SLURM_JOB_ID:-}" ] || { say "this is a batch script: sbatch slurm/per-adapter.sh CONFIG [key.path=value ...]"; exit 2; }
[ $# -ge 1 ] || { say "usage: sbatch slurm/per-adapter.sh CONFIG [key.path=value ...]"; exit 2; }
setup() { # the user's lines may read unset variables, as module and conda do, and leave set -e behind
    trap 'say "WFC_SETUP ended the job at: ${WFC_SETUP:-}" >&2' EXIT
    set +u; eval "${WFC_SETUP:-}"; local code=$?; set +e -u; trap - EXIT
    return $code
}
setup; code=$? # not `setup || ...`, which would switch off a set -e of the user's
[ $code = 0 ] || { say "WFC_SETUP failed with exit code $code: $WFC_SETUP"; exit 2; }

run_dir=$("${WFC_PYTHON:-python}" -c '
import sys
from wfc_dist import errors
from wfc_dist import load_config
try:
    print(load_config(sys.argv[1], sys.argv[2:]).run_dir())
except errors.WfcError as error:
    sys.exit(f"wfc: {error.message}")' "$@") || {
    say "the configuration cannot be used, or WFC_PYTHON=${WFC_PYTHON:-python} has no wfc_dist"
    exit 2
}

on_warning() { # SIGKILL, because on any other signal wfc would stop the jobs
    again=yes interrupted=yes
    [ -z "$wfc" ] || kill -KILL "$wfc" 2>/dev/null
}
trap on_warning USR1
trap 'interrupted=yes terminated=yes; [ -z "$wfc" ] || kill -TERM "$wfc" 2>/dev/null' TERM
say "job $SLURM_JOB_ID, start $((restarts + 1)), on $(hostname)"
"${WFC_PYTHON:-python}" -m wfc_dist run --plain "$@" cluster.backend=slurm &
wfc=$!
code=127
while :; do # a trap interrupts `wait`, which then knows nothing of wfc; 127: not a child any more, its code is known
    interrupted=''
    wait $wfc; status=$?
    [ $status = 127 ] || code=$status
    [ -n "$interrupted" ] || break
done
say "wfc ended with exit code $code"
[ -z "$again" ] || [ $code -gt 128 ] || again='' # it came to its own end before the signal
# 75 without a signal: something that passes. RUN/stop is there where somebody, a drain or the run itself asked for the stop.
asked() { [ -e "$run_dir/stop" ] && ! grep -qs '"by_itself": true' "$run_dir/status.json"; }
[ -n "$terminated" ] || [ $code != 75 ] || asked || again=yes
if [ -n "$again" ]; then
    if [ "$restarts" -lt "${WFC_MAX_REQUEUES:-20}" ]; then
        say "requeueing the coordinator (restart $((restarts + 1)) of at most ${WFC_MAX_REQUEUES:-20}); its jobs go on"
        scontrol requeue "$SLURM_JOB_ID"
    else
        say "not requeued: WFC_MAX_REQUEUES=${WFC_MAX_REQUEUES:-20} is reached; its jobs go on, the same command finds them"
    fi
fi
exit $code
