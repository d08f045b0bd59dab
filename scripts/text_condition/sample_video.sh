#!/usr/bin/env bash
# The older name of sample_video_65.sh; `--pretrained_ckpt output_dir` uses the transformer of a run.
set -euo pipefail
exec bash "$(dirname "$0")/sample_video_65.sh" "$@"
