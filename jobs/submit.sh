#!/usr/bin/env bash
# Submits a run with nothing but Ray on this machine; `fedvtc submit` does more where fedvtc is installed.
#   jobs/submit.sh conf/experiment/digits.yaml run.name=mine run.output_dir=/mnt/shared/outputs
# The cluster is that of RAY_API_SERVER_ADDRESS or RAY_ADDRESS, such as http://HEAD:8265, else the one on this machine.
# Where it wants a token: export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE
set -euo pipefail
cd "$(dirname "$0")/.."
# Again with the same run.name and run.output_dir, the run goes on.
exec ray job submit --address http://127.0.0.1:8265 --working-dir . --runtime-env jobs/runtime_env.yaml -- \
    python -m fedvtc run "$@" run.resume=auto --plain
