#!/usr/bin/env bash
# The published files load as they were downloaded, so nothing is converted: this shows what was found of them and what a video takes.
set -euo pipefail
export PATH="${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH"
python -m opensora info LanguageBind/Open-Sora-Plan-v1.1.0 --text_encoder_name DeepFloyd/t5-v1_1-xxl "$@"
