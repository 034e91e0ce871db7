#!/usr/bin/env bash
#SBATCH --job-name=fedvtc
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --exclusive
#SBATCH --time=04:00:00
#SBATCH --signal=B:USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
#
# Runs a federation on the nodes of one Slurm job: Ray on all nodes, the coordinator on the first.
#   sbatch jobs/slurm.sh conf/experiment/digits.yaml run.name=mine run.output_dir=/scratch/shared/outputs
# Three minutes before the end, Slurm sends SIGUSR1 to this script, and the script to the run, which saves and ends.
# Submit again with the same arguments, or requeue, to resume the run from its newest checkpoint.
# Run `ray get-auth-token --generate` once before: a token in ~/.ray keeps other users of the nodes out.
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?submit this script by sbatch}"

nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
HEAD_ADDRESS="${nodes%%$'\n'*}:6379"
NUM_NODES=$SLURM_JOB_NUM_NODES
NUM_CPUS=$SLURM_CPUS_PER_TASK
RUN_PID=$(mktemp)
export HEAD_ADDRESS NUM_NODES NUM_CPUS RUN_PID
export RAY_AUTH_MODE=token RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=300

# Lightning would take actors for ranks of one training if it found SLURM_* and RANK, so Ray starts without them. At the
# end, Ray stops all of its processes on these nodes, also those of other jobs, hence --exclusive.
# shellcheck disable=SC2016
srun --nodes="$NUM_NODES" --ntasks="$NUM_NODES" --cpus-per-task="$NUM_CPUS" bash -c '
    unset ${!SLURM_@} RANK LOCAL_RANK WORLD_SIZE
    exec ray symmetric-run --address "$HEAD_ADDRESS" --min-nodes "$NUM_NODES" --num-cpus="$NUM_CPUS" -- \
        bash -c "echo \$\$ >\"\$RUN_PID\"; exec \"\$@\"" bash \
        python -m fedvtc run "$@" conf/cluster/attached.yaml run.resume=auto --plain
' fedvtc "$@" &
step=$!
# The run is on the node of this script, the first of the job. SIGUSR1 to all processes would end Ray.
trap 'kill -USR1 "$(cat "$RUN_PID")" || true' USR1
code=0
wait "$step" || code=$?
# The trap ends the first `wait`.
while kill -0 "$step" 2>/dev/null; do
    code=0
    wait "$step" || code=$?
done
# `ray symmetric-run` ends with 0 if Ray does not start.
if [[ $code == 0 && ! -s $RUN_PID ]]; then
    echo "jobs/slurm.sh: the run did not start; the lines above have the reason" >&2
    code=1
fi
rm -f "$RUN_PID"
exit "$code"
