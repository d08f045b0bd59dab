#!/usr/bin/env bash
# Generate videos of 65 frames from examples/prompt_list_65.txt, or from the file PROMPTS.
set -euo pipefail
export PATH="${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH"
python opensora/sample/sample_t2v.py \
    --model_path LanguageBind/Open-Sora-Plan-v1.1.0 \
    --version 65x512x512 \
    --text_encoder_name DeepFloyd/t5-v1_1-xxl \
    --text_prompt "${PROMPTS:-examples/prompt_list_65.txt}" \
    --num_frames 65 \
    --height 512 \
    --width 512 \
    --save_img_path sample_videos/prompt_list_65 \
    --fps 24 \
    --guidance_scale 7.5 \
    --num_sampling_steps 150 \
    --enable_tiling \
    "$@"
