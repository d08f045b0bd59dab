#!/usr/bin/env bash
# Train a stage on 8 accelerators: scripts/train_stage.sh STAGE VERSION PRETRAINED [options of `opensora train`].
# STAGE: preset and name of the run. VERSION: the transformer's folder in the release. PRETRAINED: initial weights.
set -euo pipefail
stage=$1 version=$2 pretrained=$3
shift 3
export PATH="${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH"
devices=${DEVICES:-8}
exec msrun --bind_core=True --worker_num="$devices" --local_worker_num="$devices" --master_port="${MASTER_PORT:-9000}" \
    --log_dir="runs/$stage/parallel_logs" --join=True --tail_worker_log=0 \
    opensora/train/train_t2v.py \
    --config "train/$stage" \
    --model_path LanguageBind/Open-Sora-Plan-v1.1.0 \
    --version "$version" \
    --pretrained "$pretrained" \
    --video_data scripts/train_data/video_data.txt \
    --image_data scripts/train_data/image_data.txt \
    --text_embed_cache True \
    --enable_tiling \
    --use_parallel True \
    "$@"
