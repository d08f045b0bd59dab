#!/usr/bin/env bash
# Reconstruct every video in a folder.
set -euo pipefail
export PATH="${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH"
python examples/rec_video_vae.py \
    --model_path LanguageBind/Open-Sora-Plan-v1.1.0/vae \
    --real_video_dir videos \
    --generated_video_dir videos_reconstructed \
    --sample_rate 1 \
    --num_frames 65 \
    --resolution 512 \
    --crop_size 512 \
    --num_workers 8 \
    "$@"
