#!/usr/bin/env bash
# Reconstruct one video.
set -euo pipefail
export PATH="${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH"
python examples/rec_imvi_vae.py \
    --model_path LanguageBind/Open-Sora-Plan-v1.1.0/vae \
    --video_path test.mp4 \
    --rec_path rec.mp4 \
    --sample_rate 1 \
    --num_frames 513 \
    --resolution 256 \
    --crop_size 256 \
    "$@"
