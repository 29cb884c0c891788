#!/bin/bash
# sbatch --array=1-8 slurm/array.sh LIST     one run for each line of the file LIST: CONFIG [key.path=value ...]
#
# Every task of the array is a job of its own, like `sbatch slurm/round.sh LINE`; the same options and variables hold.
# --array=1-8%2 lets two of them run at a time.
#SBATCH --job-name=wfc
#SBATCH --nodes=3
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=4
#SBATCH --no-kill
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=logs/wfc-%A_%a.out
#SBATCH --signal=B:USR1@300
set -u
if [ -z "${SLURM_ARRAY_TASK_ID:-}" ] || [ $# != 1 ]; then echo "usage: sbatch --array=1-N slurm/array.sh LIST" >&2; exit 2; fi
mapfile -t lines < <(grep -v -e '^ *#' -e '^ *$' "$1")
line=${lines[SLURM_ARRAY_TASK_ID - 1]:-}
[ -n "$line" ] || { echo "array.sh: $1 has ${#lines[@]} lines, none for task $SLURM_ARRAY_TASK_ID; give --array=1-${#lines[@]}" >&2; exit 2; }
# Words, with quotes as in a shell ("a b", 'a b', a\ b); nothing is expanded.
words=$(xargs -n 1 printf '%s\n' <<<"$line") || { echo "array.sh: line $SLURM_ARRAY_TASK_ID of $1 has an open quote: $line" >&2; exit 2; }
mapfile -t arguments <<<"$words"
# Slurm runs a copy of this file; the original's folder has round.sh
# not SLURM_JOB_ID: one task's is that of the whole array
script=$(scontrol show job "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID" | sed -n 's/^ *Command=//p' | head -n 1)
while [ ! -f "$script" ] && [[ $script == *' '* ]]; do script=${script% *}; done # its arguments follow; its path may have blanks
# shellcheck source=/dev/null
source "$(dirname "$script")/round.sh" "${arguments[@]}"
