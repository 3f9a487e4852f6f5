#!/usr/bin/env bash
# Start a run with one process per device, on this machine or on several:
#
#   scripts/torchrun.sh fit -c RECIPE -c configs/trainer/ddp.yaml       one process for each GPU
#   PROCESSES=2 scripts/torchrun.sh fit ...                             this many, such as on a CPU
#   NODES=4 HEAD=node0 scripts/torchrun.sh fit ...                      the same line on 4 machines
#   RESTARTS=3 scripts/torchrun.sh fit ... --ckpt_path last             start again after a crash
#
# HEAD is the name or address of one of the machines, PORT a free port there. All machines need
# this repository, the data and checkpoints/ under the same paths: on a shared file system.
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
[ -x "$python" ] || python=python3

processes=${PROCESSES:-$("$python" -c 'import torch; print(torch.cuda.device_count() or 1)')}
# Threads of each process; torchrun's own default is 1, which leaves CPUs idle.
cores=$("$python" -c 'import os; print(os.cpu_count())')
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$((cores > processes ? cores / processes : 1))}

if [ -n "${NODES:-}" ]; then
  meet=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-id "${JOB:-lit-llm}"
    --rdzv-endpoint "${HEAD:?name one of the machines: HEAD=node0}:${PORT:-29400}")
else
  meet=(--standalone)
fi

# `--` keeps torchrun from reading flags of ours, such as --run, as short for its own.
exec "$python" -m torch.distributed.run "${meet[@]}" --nproc-per-node "$processes" \
  --max-restarts "${RESTARTS:-0}" -- "$root/cli.py" "$@"
