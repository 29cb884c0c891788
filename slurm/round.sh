#!/bin/bash
# sbatch slurm/round.sh CONFIG [key.path=value ...]     runs, or goes on with, a run on the nodes of one Slurm allocation.
#
# Every #SBATCH line can be overridden: sbatch --nodes=6 --gpus-per-node=1 --time=12:00:00 slurm/round.sh ... (`mkdir logs` once).
# Environment variables set the rest (sbatch hands yours on):
#   WFC_PYTHON         Python that has wfc_dist, on every node              default: python
#   WFC_SETUP          shell lines before anything starts, such as "module load cuda; source /shared/venv/bin/activate"
#   WFC_CONTAINER      words before WFC_PYTHON, such as "apptainer exec --nv /shared/wfc.sif"; default: no container
#   WFC_MAX_REQUEUES   how often the job puts itself back                   default: 20
#   WFC_RAY_TMP        folder for Ray's sockets and logs, one on each node  default: /tmp; its path must be short
#   WFC_INTERFACE      network interface that Ray, gloo and NCCL use, such as ib0; default: that of the node's host name
#   WFC_OBJECT_STORE_MB   shared memory for Ray on each node                default: 2048
#   WFC_RAY_LOGS       where Ray's logs are copied to                       default: RUN/logs/ray
#
# Warning signal (USR1: before the time limit, or on preemption): every trainer checkpoints, then the job requeues itself.
# So does a job whose run ends with 75 by itself: nodes that are late, a disk that is full, a lock that a crash has left.
# A node that is lost costs its trainers; if it is the first one, Slurm requeues the job.
# SIGTERM: every trainer checkpoints, then the job ends. Without any signal a start goes on from what the run directory holds.
#SBATCH --job-name=wfc
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/wfc-%j.out
#SBATCH --signal=B:USR1@300
# shellcheck disable=SC2317 # functions that traps and other nodes call
set -u
restarts=${SLURM_RESTART_COUNT:-0}
say() { echo "round.sh: $(date +%FT%T) $*"; }
die() { say "$1"; exit "${2:-1}"; }

# -- what each node does; runs as one task on each ------------------------------------------------------------------------
node_address() { # not loopback, which Debian gives the host name; with several networks the site knows which (WFC_INTERFACE)
    if [ -n "${WFC_INTERFACE:-}" ]; then
        ip -4 -o addr show dev "$WFC_INTERFACE" | awk '{sub("/.*", "", $4); print $4; exit}'
    else
        { getent ahostsv4 "$(hostname)"; hostname -I | tr ' ' '\n'; } | awk '$1 ~ /^[0-9.]+$/ && $1 !~ /^127\./ {print $1; exit}'
    fi
}

ray_node() { # starts Ray; ends it when standard input is closed, which happens at the latest when the batch script is gone
    trap '' TERM # Slurm's, to all at once: Ray answers it by itself, this shell stays to clean up
    local address where ray log target word ended=''
    address=$(node_address)
    where=(--address="$WFC_HEAD:$WFC_PORT")
    # port 0: the system chooses one that is free, so that several jobs on this node can't meet
    [ "$SLURM_PROCID" = 0 ] && where=(--head --port="$WFC_PORT" --ray-client-server-port=$((WFC_PORT + 1)) --include-dashboard=false)
    mkdir -m 700 "$WFC_TMP" || { echo "$(hostname): cannot make $WFC_TMP; set WFC_RAY_TMP to a folder on each node"; return 1; }
    if [ "$SLURM_PROCID" != 0 ]; then # a worker that asks before the head is there gives up
        for _ in {1..240}; do (exec 4<>"/dev/tcp/$WFC_HEAD/$WFC_PORT") 2>/dev/null && break; sleep 0.5; done
    fi
    # shellcheck disable=SC2086 # the container's words
    (trap - TERM; exec ${WFC_CONTAINER:-} "$WFC_PYTHON" -m ray.scripts.scripts start "${where[@]}" --node-ip-address="$address" --block \
        --temp-dir="$WFC_TMP" --num-cpus="$SLURM_CPUS_ON_NODE" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
        --object-store-memory=$((WFC_STORE_MB << 20)) --dashboard-agent-listen-port=0 --disable-usage-stats \
        >"$WFC_TMP/ray-start.log" 2>&1 </dev/null) &
    ray=$!
    while kill -0 "$ray" 2>/dev/null; do
        if read -rt 1 word; then ended=$word; else [ $? -gt 128 ] || break; fi # above 128: nothing said within a second
    done
    kill "$ray" 2>/dev/null || { echo "Ray on $(hostname) ended by itself:"; tail -n 20 "$WFC_TMP/ray-start.log"; }
    for _ in {1..20}; do kill -0 "$ray" 2>/dev/null || break; sleep 0.5; done
    pkill -KILL -U "$UID" -f -- "$WFC_TMP/" # what it left behind: the folder's name is in the command line of this job's Ray only
    if [ -n "${WFC_RAY_LOGS:-}" ] || [ -e "$WFC_RUN/config.json" ]; then
        target=${WFC_RAY_LOGS:-$WFC_RUN/logs/ray}/$WFC_JOB/$(hostname -s)
        mkdir -p "$target"
        # bounded: the last 100 files, the end of each
        find "$WFC_TMP/ray-start.log" "$WFC_TMP"/session_2*/logs -maxdepth 1 -type f -size +0 -printf '%T@ %p\n' 2>/dev/null |
            sort -rn | head -n 100 | while read -r _ log; do tail -c 1000000 "$log" >"$target/${log##*/}"; done
    fi
    rm -rf "$WFC_TMP"
    [ -n "$ended" ] || [ "$SLURM_PROCID" = 0 ] || requeue_without_first_node
}

requeue_without_first_node() { # with --no-kill, Slurm takes a lost node out of the job and does not ask what ran there
    local state
    for _ in {1..120}; do # until Slurm knows (SlurmdTimeout)
        state=$(squeue -h -j "$WFC_JOB_ID" -o '%T %N')
        [ "${state%% *}" = RUNNING ] || return
        scontrol show hostnames "${state#* }" | grep -qx "$WFC_HEAD_NODE" || { scontrol requeue "$WFC_JOB_ID"; return; }
        sleep 5
    done
}

# -- what is known before anything starts ---------------------------------------------------------------------------------
[ -n "${SLURM_JOB_ID:-}" ] || die "this is a batch script: sbatch slurm/round.sh CONFIG [key.path=value ...]" 2
[ $# -ge 1 ] || die "usage: sbatch slurm/round.sh CONFIG [key.path=value ...]" 2
[ "${SLURM_HET_SIZE:-1}" -le 1 ] || die "this is a heterogeneous job, whose parts Ray cannot share; sbatch it without ':'" 2
setup() { # the user's lines may read unset variables, as module and conda do, and leave set -e behind
    trap 'say "WFC_SETUP ended the job at: ${WFC_SETUP:-}" >&2' EXIT
    set +u; eval "${WFC_SETUP:-}"; local code=$?; set +e -u; trap - EXIT
    return $code
}
setup; code=$? # not `setup || ...`, which would switch off a set -e of the user's
[ $code = 0 ] || die "WFC_SETUP failed with exit code $code: $WFC_SETUP" 2
read -ra container <<<"${WFC_CONTAINER:-}"
export WFC_PYTHON=${WFC_PYTHON:-python} WFC_JOB=$SLURM_JOB_ID-$restarts WFC_STORE_MB=${WFC_OBJECT_STORE_MB:-2048}
job=$SLURM_JOB_ID # as scontrol takes it: in an array one task's SLURM_JOB_ID is that of the whole array
[ -z "${SLURM_ARRAY_TASK_ID:-}" ] || job=${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID
config=$1; shift
run_dir=$("${container[@]}" "$WFC_PYTHON" -c '
import sys
from wfc_dist import errors
from wfc_dist import load_config
try:
    print(load_config(sys.argv[1], sys.argv[2:]).run_dir())
except errors.WfcError as error:
    sys.exit(f"wfc: {error.message}")' "$config" "$@") || die "the configuration cannot be used, or WFC_PYTHON=$WFC_PYTHON has no wfc_dist" 2
if [ "$restarts" -gt 0 ] && grep -qs '"state": "done"' "$run_dir/status.json"; then
    say "$run_dir is done already"
    exit 0
fi
export WFC_TMP=${WFC_RAY_TMP:-/tmp}/wfc-$WFC_JOB WFC_RUN=$run_dir
# Ray adds up to 65 characters; the path of a socket has at most 107
[ ${#WFC_TMP} -le 40 ] || die "WFC_RAY_TMP makes $WFC_TMP: too long for Ray's sockets, 40 characters at most" 2

# -- warnings -------------------------------------------------------------------------------------------------------------
warned='' wfc='' interrupted=''
on_signal() { # bash comes here only between commands and out of `wait`: nothing below may block for long
    interrupted=yes
    if [ -z "$warned" ]; then
        warned=$1
        say "SIG$1: checkpointing"
        # one signal only: a second one would end wfc at once. Always USR1: SIGTERM is Ray's own in a program that uses Ray.
        [ -z "$wfc" ] || kill -USR1 "$wfc" 2>/dev/null
    fi
}
await() { # the exit code of a child: a trap interrupts `wait`, which then knows nothing of the child; 127: no longer a child
    local status code=127
    while :; do
        interrupted=''
        wait "$1"; status=$?
        [ $status = 127 ] || code=$status
        [ -n "$interrupted" ] || return "$code"
    done
}
trap 'on_signal USR1' USR1
trap 'on_signal TERM' TERM

# -- Ray on every node ----------------------------------------------------------------------------------------------------
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
WFC_HEAD=$(node_address)
[ -n "$WFC_HEAD" ] || die "this node has no address of its own; set WFC_INTERFACE to one of: $(hostname -I)" 2
WFC_PORT=$((20000 + 2 * ((SLURM_JOB_ID * 7 + restarts) % 5000))) # below the ports that the system gives away
while (exec 4<>"/dev/tcp/$WFC_HEAD/$WFC_PORT") 2>/dev/null; do WFC_PORT=$((WFC_PORT + 2)); done # of another job
# A fresh token for each start, in the environment: other users of the nodes can read a command line, but not that.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export WFC_HEAD WFC_HEAD_NODE=${nodes[0]} WFC_JOB_ID=$job
export WFC_PORT RAY_AUTH_TOKEN RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export RAY_prestart_worker_first_driver=0 # Ray would start a worker for each core, and wait for them, though none is used
unset RAY_ADDRESS RAY_AUTH_TOKEN_PATH
[ -z "${WFC_INTERFACE:-}" ] || export GLOO_SOCKET_IFNAME=$WFC_INTERFACE NCCL_SOCKET_IFNAME=$WFC_INTERFACE
say "job $SLURM_JOB_ID, start $((restarts + 1)), on ${nodes[*]}; Ray at $WFC_HEAD:$WFC_PORT; run $run_dir"
# One step on all nodes. No --cpus-per-task: each task then gets all that the job has on its node, and is not bound to less.
options=(--overlap --kill-on-bad-exit=0 --wait=0 --no-kill)
scontrol show config | grep -q '^TaskPlugin .*affinity' && options+=(--cpu-bind=none)
exec 3> >(env -u SLURM_CPUS_PER_TASK -u SRUN_CPUS_PER_TASK srun "${options[@]}" --nodes=${#nodes[@]} --ntasks=${#nodes[@]} \
    --ntasks-per-node=1 bash -c "$(declare -f node_address ray_node requeue_without_first_node); ray_node")
srun=$!
for _ in {1..240}; do
    (exec 4<>"/dev/tcp/$WFC_HEAD/$WFC_PORT") 2>/dev/null && break
    if [ -n "$warned" ] || ! kill -0 $srun 2>/dev/null; then break; fi
    sleep 0.5
done

# -- the run --------------------------------------------------------------------------------------------------------------
code=75
if [ -z "$warned" ]; then
    names=$(printf '"%s",' "${nodes[@]}") # quoted: a host may be called 007
    "${container[@]}" "$WFC_PYTHON" -m wfc_dist run --plain "$config" cluster.backend=ray cluster.address="$WFC_HEAD:$WFC_PORT" \
        cluster.wait_for_nodes="[${names%,}]" "$@" 3>&- &
    wfc=$!
    await $wfc
    code=$?
fi
say "wfc ended with exit code $code"

# -- the end --------------------------------------------------------------------------------------------------------------
# 138: the warning came before wfc could handle it. Requeueing comes first: a time limit may leave no time for the rest.
again=''
case "$warned $code" in "USR1 75" | "USR1 138") again=yes ;; esac
# 75 without a signal: something that passes. RUN/stop is there where somebody, a drain or the run itself asked for the stop.
asked() { [ -e "$run_dir/stop" ] && ! grep -qs '"by_itself": true' "$run_dir/status.json"; }
[ -n "$warned" ] || [ $code != 75 ] || asked || again=yes
if [ -n "$again" ]; then
    if [ "$restarts" -lt "${WFC_MAX_REQUEUES:-20}" ]; then
        say "requeueing the job (restart $((restarts + 1)) of at most ${WFC_MAX_REQUEUES:-20})"
        scontrol requeue "$job"
    else
        say "not requeued: WFC_MAX_REQUEUES=${WFC_MAX_REQUEUES:-20} is reached; the same sbatch command goes on"
    fi
fi
(trap '' PIPE; echo ended >&3) 2>/dev/null # by itself, not with this node
exec 3>&- # ends Ray on every node
until wait $srun; ! kill -0 $srun 2>/dev/null; do :; done
exit $code
