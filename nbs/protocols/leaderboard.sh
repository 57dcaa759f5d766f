#!/bin/bash
#SBATCH --job-name=adaptseg
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=48:00:00
#SBATCH --requeue

# A leaderboard on a SLURM cluster: a run on each GPU, from a folder that all nodes see.
#   sbatch --nodes 2 nbs/protocols/leaderboard.sh TABLE DATA OUT [SEEDS]
# What the time limit cut goes on when the job is sent again.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: sbatch --nodes 2 $0 TABLE DATA OUT [SEEDS], such as nbs/protocols/one_training.csv data runs/real" >&2
    exit 2
fi
table=$1 data=$2 out=$3 seeds=${4:-0,1,2}

mkdir -p "$out"
meeting=$(realpath "$out")/scheduler-$SLURM_JOB_ID.json
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$meeting"' EXIT

dask scheduler --scheduler-file "$meeting" --port 0 --no-dashboard >"$out/scheduler.log" 2>&1 &
for _ in $(seq 60); do
    [ -s "$meeting" ] && break
    sleep 1
done
srun dask worker --scheduler-file "$meeting" --nthreads 1 --memory-limit 0 --no-dashboard >"$out/workers.log" 2>&1 &

address=$(python -c "import json, sys; print(json.load(open(sys.argv[1]))['address'])" "$meeting")
adaptseg leaderboard --table "$table" --data_root "$data" --out "$out" --seeds "$seeds" --scheduler "$address"
