#!/usr/bin/env bash
# Stage 2: train on clips of 221 frames with 8 images each, from the run of stage 1; 8 accelerators split the frames.
# DEVICES and MASTER_PORT configure the launch, arguments the training.
set -euo pipefail
exec bash "$(dirname "$0")/../train_stage.sh" 221x512x512 221x512x512 runs/65x512x512 --use_image_num 8 --sp_size "${DEVICES:-8}" "$@"
