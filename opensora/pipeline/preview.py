"""Preview of a transformer in training: an mp4 for each of a few prompts, and a sheet with frames of all."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from opensora.data.text.prompts import read_prompts
from opensora.media.names import safe_name
from opensora.media.sheets import contact_sheet
from opensora.media.writer import write_video
from opensora.models import LatteT2V, T5Encoder
from opensora.models.spec import ModelSpec
from opensora.pipeline.core import Pipeline
from opensora.weights import WeightsError
from opensora.weights.sources import folder_files

FRAMES_SHOWN = 8
log = logging.getLogger(__name__)


class PromptPreview:
    """Samples the same prompts from the same noise each time, with the model folder's defaults."""

    def __init__(self, prompts: Sequence[str], spec: ModelSpec) -> None:
        """Read the prompts: sentences, or .txt and .csv files of them.

        spec: the transformer's folder may lack weights.
        Raises ValueError for prompts or weights of the autoencoder that are missing.
        """
        self.prompts, self.spec = read_prompts(prompts), spec
        if not folder_files(spec.paths.vae):
            raise WeightsError(
                f"validation_prompts needs the weights of the autoencoder, which {spec.paths.vae} lacks: "
                "name its folder with --ae_path, or leave validation_prompts out"
            )
        if spec.text_encoder is None:
            raise WeightsError(
                "validation_prompts needs the text encoder: "
                "name its folder with --text_encoder_name, or leave validation_prompts out"
            )

    def __call__(
        self, transformer: LatteT2V, text_encoder: T5Encoder | None, folder: Path, step: int
    ) -> None:
        """Write `folder`/step-<step>/<prompt>.mp4 (.png for a picture) and step-<step>.png.

        text_encoder: None for the folder's own.
        """
        pipe = Pipeline(self.spec, resident=False, transformer=transformer, text_encoder=text_encoder)
        rows = []
        for number, prompt in enumerate(self.prompts):
            try:
                video = pipe(prompt, seed=number)
            except ValueError as error:  # a young network may leave the range of numbers; the run goes on
                log.warning("no video of %r: %s", prompt, error)
                continue
            suffix = ".mp4" if len(video.frames) > 1 else ".png"
            video.save(folder / f"step-{step:08d}" / f"{safe_name(prompt, number)}{suffix}")
            rows.append(
                video.frames[
                    np.linspace(0, len(video.frames) - 1, min(FRAMES_SHOWN, len(video.frames))).astype(int)
                ]
            )
        if not rows:
            return
        sheet = contact_sheet(np.concatenate(rows), columns=len(rows[0]))
        write_video(folder / f"step-{step:08d}.png", sheet[None])
