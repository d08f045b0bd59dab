"""The command line: `opensora <command> ...`. One file a command, imported only when it is called."""

import errno
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from opensora.cli.arguments import parse
from opensora.cli.published import ANSWERS
from opensora.runtime import UnsupportedVersion
from opensora.weights.folder import did_you_mean

# A command is a module of this package with OPTIONS (a dataclass), POSITIONAL (a field of it, or None) and run(options).
COMMANDS = {
    "generate": "turn sentences into videos",
    "reconstruct": "what the autoencoder makes of videos and pictures, and how close it comes",
    "evaluate": "how alike the videos of two folders are: psnr, ssim, lpips, fvd",
    "evaluate-demo": "how well the demo model does what it is asked, with targets and ceilings",
    "prepare-data": "make a data set ready for training",
    "check-data": "what a run would use of data lists, what it would reject and why",
    "embed-text": "what T5 makes of captions, computed once for training",
    "train-vae": "train the autoencoder",
    "inflate-vae": "make a video autoencoder's starting weights of an image autoencoder's",
    "encode-latents": "what the autoencoder makes of a data set, computed once for training",
    "train": "train the transformer, alone or with its text encoder",
    "plot": "draw the curves of runs beside one another",
    "convert": "published files and training runs to model folders, and back",
    "combine": "one checkpoint out of the parts that the ranks of a parallel run wrote",
    "info": "what a model folder holds, and what the demo model knows",
}
HELP = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code, 2 for bad input (one sentence on stderr), 130 for Ctrl-C."""
    try:
        return _dispatch(list(sys.argv[1:] if argv is None else argv))
    except KeyboardInterrupt:
        print("opensora: interrupted; what was finished is complete on the disk", file=sys.stderr)
        return 130
    except (ValueError, OSError, UnsupportedVersion) as error:
        if os.environ.get("OPENSORA_TRACEBACK"):
            raise
        print(f"opensora: {_sentence(error)}", file=sys.stderr)
        return 2


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in HELP:
        print(_overview())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise ValueError(
            f"command {name!r} is unknown{did_you_mean(name, COMMANDS)}: choose one of {', '.join(COMMANDS)}"
        )
    command = importlib.import_module(f"opensora.cli.{name.replace('-', '_')}")
    _log_to_stderr()
    options = parse(
        command.OPTIONS, rest, f"opensora {name}", COMMANDS[name], command.POSITIONAL, ANSWERS.get(name)
    )
    if options is not None:
        return command.run(options) or 0
    return 0


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    return (
        f"usage: opensora <command> ...\n\n{lines}\n\n`opensora <command> --help` lists a command's options.\n"
        "With OPENSORA_TRACEBACK=1 in the environment an error shows where it was raised."
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"the disk {f'of {error.filename} ' if error.filename else ''}is full: free space and start the command again"
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split())


def _log_to_stderr() -> None:
    log = logging.getLogger("opensora")
    if not log.handlers:
        log.addHandler(_ToStderr())
    log.setLevel(logging.INFO)


class _ToStderr(logging.Handler):
    """Plain lines on what is stderr now: it may change between two commands in one process."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), file=sys.stderr)
