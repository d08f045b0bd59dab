"""Lines that a pipeline logs once: that a stage compiles, and the part of a prompt that is not read."""

import logging
from collections.abc import Hashable, Sequence

from opensora.console import shortened
from opensora.data.text import clean_caption
from opensora.data.text.tokenizer import Tokenizer

log = logging.getLogger(__name__)


class Notices:
    """Log lines that are not repeated."""

    def __init__(self) -> None:
        self._compiled: set[Hashable] = set()
        self._reported: set[str] = set()

    @property
    def compiled(self) -> int:
        """The number of stages and shapes that were compiled."""
        return len(self._compiled)

    def compiling(self, stage: str, *shape: Hashable) -> None:
        """A stage compiles when it meets new shapes."""
        if (stage, shape) not in self._compiled:
            self._compiled.add((stage, shape))
            log.info("compiling %s", stage)

    def unread(self, tokenizer: Tokenizer, prompts: Sequence[str], length: int) -> None:
        """Log for each prompt which part of it is beyond the model's number of tokens, `length`."""
        for prompt in dict.fromkeys(prompts):
            unread = tokenizer.unread(clean_caption(prompt, sampling=True), length)
            if unread and prompt not in self._reported:
                self._reported.add(prompt)
                log.warning(
                    "the model reads %d tokens of a prompt; of %r it does not read the end: %r",
                    length,
                    shortened(prompt),
                    shortened(unread),
                )
