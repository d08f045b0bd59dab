#!/usr/bin/env bash
# Stage 2: train on clips of 221 frames with 4 images each, from the run of stage 1, on 8 accelerators.
# DEVICES and MASTER_PORT configure the launch, arguments the training.
set -euo pipefail
exec bash "$(dirname "$0")/../train_stage.sh" 221x512x512 221x512x512 runs/65x512x512 --use_image_num 4 "$@"
