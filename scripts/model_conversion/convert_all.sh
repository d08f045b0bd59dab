#!/usr/bin/env bash
# Released files load as they were downloaded: nothing is converted. Describes them and estimates a video.
set -euo pipefail
export PATH="${VIRTUAL_ENV:-$PWD/.venv}/bin:$PATH"
python -m opensora info LanguageBind/Open-Sora-Plan-v1.1.0 --text_encoder_name DeepFloyd/t5-v1_1-xxl "$@"
