#!/usr/bin/env bash
# sample_video_65.sh under its older name; `--pretrained_ckpt output_dir` takes the transformer of a run.
set -euo pipefail
exec bash "$(dirname "$0")/sample_video_65.sh" "$@"
