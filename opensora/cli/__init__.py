"""The command line: `opensora <command> ...`. One file per command, imported only when it is called."""

import codecs
import importlib
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from opensora.cli.arguments import parse
from opensora.cli.published import ANSWERS
from opensora.console import escape_unencodable, open_closed_streams, printable, say, shortened
from opensora.files import DISK_FULL
from opensora.interrupts import as_interrupts, as_python_does
from opensora.runtime import UnsupportedVersion, engine_versions, launched
from opensora.weights.folder import did_you_mean

# A command is a module of this package with OPTIONS (a dataclass), POSITIONAL (a field of it, or None) and
# run(options).
COMMANDS = {
    "generate": "generate videos from text",
    "generate-class": "generate videos of classes",
    "reconstruct": "reconstruct videos and measure the error",
    "interpolate": "raise the frame rate of videos",
    "upscale": "enlarge videos and pictures",
    "evaluate": "compare two folders of videos (PSNR, SSIM, LPIPS, FVD), or videos with prompts (CLIP)",
    "export-vbench": "name videos as VBench's own tool reads them",
    "evaluate-demo": "score the demo model against its targets",
    "prepare-data": "prepare a data set for training",
    "check-data": "check data lists: what training would read, what it would reject and why",
    "embed-text": "precompute T5 caption embeddings for training",
    "train-vae": "train the autoencoder",
    "inflate-vae": "initialise a video autoencoder from an image autoencoder",
    "encode-latents": "precompute autoencoder latents for training",
    "train": "train the transformer",
    "train-class": "train a class-conditional or unconditional transformer",
    "plot": "plot the curves of training runs",
    "download": "download a model from the Hugging Face Hub",
    "convert": "convert checkpoints between PyTorch, MindSpore and training runs",
    "combine": "merge the checkpoint shards of a parallel run",
    "info": "describe a model folder and estimate what a video costs",
    "presets": "list the packaged presets",
}
VERSION = "--version"
HELP = ("-h", "--help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 2 for bad input (one sentence on stderr), 130 for Ctrl-C."""
    open_closed_streams()
    if argv is None:
        _require_utf8()
    escape_unencodable()
    # msrun ends its processes by SIGTERM while they wait in a library, where Python handles no signal.
    with as_python_does() if launched() else as_interrupts():
        return _main(list(sys.argv[1:] if argv is None else argv))


def _require_utf8() -> None:
    """Start again in Python's UTF-8 mode if the locale is C: prompts and names of files are rarely ASCII."""
    if codecs.lookup(sys.getfilesystemencoding()).name == "ascii":
        os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def _main(arguments: list[str]) -> int:
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # as in `opensora info | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("opensora: interrupted; finished files are complete", file=sys.stderr)
        return 130
    except (ValueError, OSError, MemoryError, UnsupportedVersion) as error:
        if os.environ.get("OPENSORA_TRACEBACK"):
            raise
        print(f"opensora: {printable(_sentence(error))}", file=sys.stderr)
        return 2


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in HELP:
        print(_overview())
        return 0
    if arguments[0] == VERSION:
        say(", ".join(f"{name} {number}" for name, number in engine_versions().items()))
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise ValueError(
            f"command {name!r} is unknown{did_you_mean(name, COMMANDS)}: choose one of {', '.join(COMMANDS)}"
        )
    _log_to_stderr()
    options = parse_command(name, rest)
    if options is None:
        return 0
    return command_module(name).run(options) or 0


def command_module(name: str) -> Any:
    return importlib.import_module(f"opensora.cli.{name.replace('-', '_')}")


def parse_command(name: str, words: Sequence[str]) -> Any:
    """The options of the command `name` that `words` give, or None after printing its help."""
    command = command_module(name)
    answers = ANSWERS.get(name)
    return parse(command.OPTIONS, words, f"opensora {name}", COMMANDS[name], command.POSITIONAL, answers)


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = "\n".join(f"  {name:{width}}  {summary}" for name, summary in COMMANDS.items())
    return (
        f"usage: opensora <command> ...\n\n{lines}\n\n"
        "`opensora --version` prints the versions of opensora and its engines.\n"
        "`opensora <command> --help` lists the options of a command.\n"
        "OPENSORA_TRACEBACK=1 in the environment shows the traceback of an error."
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, MemoryError):
        return "there is not enough memory: close other programs, or use smaller files or batches"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        disk = f"the disk of {error.filename}" if error.filename else "the disk"
        return f"{disk} is full: free space and start the command again"
    if isinstance(error, FileNotFoundError) and not error.filename and not _has_folder():
        return "the working directory was deleted: change to a folder that exists and start the command again"
    if isinstance(error, OSError) and error.filename:
        return f"{shortened(str(error.filename), 200)}: {error.strerror}"
    return str(error)  # a line break is that of a name, and will be escaped


def _has_folder() -> bool:
    """True if the working directory exists."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _log_to_stderr() -> None:
    log = logging.getLogger("opensora")
    if not log.handlers:
        log.addHandler(_ToStderr())
    log.setLevel(logging.INFO)


class _ToStderr(logging.Handler):
    """Plain lines on the current stderr, which may change between two commands in one process."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):  # the terminal may be gone, and the command goes on
            print(printable(self.format(record)), file=sys.stderr)
