#!/bin/bash

# Parameters
#SBATCH --account=speech
#SBATCH --constraint=a100
#SBATCH --cpus-per-task=4
#SBATCH --exclusive
#SBATCH --gpus-per-node=1
#SBATCH --job-name=wfc-x-round-0001-train-a-1f
#SBATCH --mem=7680M
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --open-mode=append
#SBATCH --output=/dev/null
#SBATCH --partition=gpu
#SBATCH --requeue
#SBATCH --signal=USR2@120
#SBATCH --time=90
#SBATCH --wckey=submitit

# setup
test -f '/shared/my run/slurm/round-0001/train-a-1/job.json' || exit 66
exec >>'/shared/my run/slurm/round-0001/train-a-1/batch.log' 2>&1
[ -O '/shared/my run/slurm/round-0001/train-a-1/submitit' ] && [ -z "$(find '/shared/my run/slurm/round-0001/train-a-1/submitit' -maxdepth 0 -perm /022)" ] || exit 67
module load cuda

# command
export SUBMITIT_EXECUTOR=slurm
srun --unbuffered --output '/shared/my run/slurm/round-0001/train-a-1/submitit/%j_%t_log.out' --kill-on-bad-exit=1 --cpus-per-task=4 python -m submitit
