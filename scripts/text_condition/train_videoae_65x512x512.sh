#!/usr/bin/env bash
# Stage 1: clips of 65 frames with 4 pictures each, from Latte's weights, on 8 accelerators.
# DEVICES and MASTER_PORT change the launch, arguments the training.
set -euo pipefail
export PATH="${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH"
devices=${DEVICES:-8}
msrun --bind_core=True --worker_num="$devices" --local_worker_num="$devices" --master_port="${MASTER_PORT:-9000}" \
    --log_dir=runs/65x512x512/parallel_logs --join=True --tail_worker_log=0 \
    opensora/train/train_t2v.py \
    --config train/65x512x512 \
    --model_path LanguageBind/Open-Sora-Plan-v1.1.0 \
    --version 65x512x512 \
    --pretrained LanguageBind/Open-Sora-Plan-v1.1.0/t2v.ckpt \
    --video_data scripts/train_data/video_data.txt \
    --image_data scripts/train_data/image_data.txt \
    --text_embed_cache True \
    --enable_tiling \
    --use_parallel True \
    "$@"
