#!/usr/bin/env bash
# Submits a run from a machine that has Ray only. If the machine has fedvtc, use `fedvtc submit`, which does more.
#   jobs/submit.sh conf/experiment/digits.yaml run.name=mine run.output_dir=/mnt/shared/outputs
# Set RAY_API_SERVER_ADDRESS or RAY_ADDRESS to the dashboard, such as http://HEAD:8265; the default is this machine's.
# For a cluster with a token: export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=FILE, with FILE outside of this
# repository, whose files are sent.
set -euo pipefail
cd "$(dirname "$0")/.."
# Submitting again with the same run.name and run.output_dir resumes the run.
exec ray job submit --address http://127.0.0.1:8265 --working-dir . --runtime-env jobs/runtime_env.yaml -- \
    python -m fedvtc run "$@" run.resume=auto --plain
