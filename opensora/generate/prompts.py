"""Hints about prompts that the model may not follow."""

import logging
import re

from opensora.console import shortened
from opensora.data.text import clean_caption
from opensora.demo_data.render import demo_set
from opensora.generate.options import GenerateJob
from opensora.weights.folder import DEMO

log = logging.getLogger(__name__)


def log_prompt_hints(job: GenerateJob) -> None:
    """Log the job's hint, prompts that are empty after cleaning, and those the demo model does not know."""
    if job.hint:
        log.info("%s", job.hint)
    if job.options.decode_latents:
        return
    for prompt in dict.fromkeys(job.prompts):
        cleaned = clean_caption(prompt, sampling=True)
        if not cleaned:
            log.info(
                "prompt %r is empty after cleaning: the model was trained on English captions",
                shortened(prompt),
            )
        elif job.spec.paths.path == DEMO and not names_a_subject(cleaned):
            subjects, colours = ", ".join(demo_set().subjects), ", ".join(demo_set().colours)
            log.info(
                "prompt %r names no subject of the demo model: its subjects are %s; its backgrounds are %s",
                shortened(prompt),
                subjects,
                colours,
            )


def names_a_subject(prompt: str) -> bool:
    """True if a cleaned prompt names one of the demo model's subjects."""
    return any(re.search(rf"\b{re.escape(subject)}\b", prompt) for subject in demo_set().subjects)
