#!/usr/bin/env bash
# Train the autoencoder from inflated weights (tools/model_conversion/inflate_vae2d_to_vae3d.py), with LPIPS and a
# discriminator, on one device.
set -euo pipefail
export PATH="${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH"
python opensora/train/train_causalvae.py \
    --config train/vae-release \
    --load_from_checkpoint pretrained/causal_vae_488_init.ckpt \
    --lpips_weights "${LPIPS:-pretrained/lpips_vgg-426bf45c.ckpt}" \
    --video_path videos \
    "$@"
