#!/usr/bin/env bash
# Stage 3: clips of 513 frames with 8 pictures each, from the run of stage 2; 8 accelerators share the frames of a clip.
# DEVICES and MASTER_PORT change the launch, arguments the training.
set -euo pipefail
export PATH="${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH"
devices=${DEVICES:-8}
msrun --bind_core=True --worker_num="$devices" --local_worker_num="$devices" --master_port="${MASTER_PORT:-9000}" \
    --log_dir=runs/513x512x512/parallel_logs --join=True --tail_worker_log=0 \
    opensora/train/train_t2v.py \
    --config train/513x512x512 \
    --model_path LanguageBind/Open-Sora-Plan-v1.1.0 \
    --version 221x512x512 \
    --pretrained runs/221x512x512 \
    --video_data scripts/train_data/video_data.txt \
    --image_data scripts/train_data/image_data.txt \
    --text_embed_cache True \
    --enable_tiling \
    --use_image_num 8 \
    --sp_size "$devices" \
    --use_parallel True \
    "$@"
