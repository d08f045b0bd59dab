#!/usr/bin/env bash
# Stage 1: train on clips of 65 frames with 4 images each, from Latte's weights, on 8 accelerators.
# DEVICES and MASTER_PORT configure the launch, arguments the training.
set -euo pipefail
exec bash "$(dirname "$0")/../train_stage.sh" 65x512x512 65x512x512 LanguageBind/Open-Sora-Plan-v1.1.0/t2v.ckpt "$@"
