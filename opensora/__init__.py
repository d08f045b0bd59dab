"""Text to video.

    from opensora import Pipeline

    pipe = Pipeline.from_pretrained("demo")       # or a model folder; see help(Pipeline.from_pretrained)
    video = pipe("an elephant on a sky blue background", seed=0)    # see help(Pipeline.__call__)
    video.save("elephant.mp4")                    # see help(Video)

`opensora.diffusion.SAMPLERS` names the samplers, and `opensora.models` has the networks: `CausalVAE`,
`LatteT2V` and `T5Encoder`. docs/python.md in the repository has examples. Importing the package is quick: an
engine is imported when it computes.
"""

import os
import sys

# `python -m opensora` puts the working directory before the standard library and all packages, so that a
# numpy.py of the user would be imported for NumPy. While Python looks for the module to run, sys.argv[0] is
# "-m".
if sys.argv[:1] == ["-m"] and "opensora" in sys.orig_argv and not sys.flags.safe_path:
    here = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
    if os.path.realpath(sys.path[0]) != here:  # in a checkout the package itself comes from there
        del sys.path[0]

from opensora.interrupts import exit_while_importing, is_command

if is_command():
    exit_while_importing()  # before the imports that take time

from typing import TYPE_CHECKING, Any

import opensora.runtime

if TYPE_CHECKING:
    from opensora.pipeline import Cancelled, Pipeline, Video

    __version__: str

__all__ = ["Cancelled", "Pipeline", "Video"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from opensora import pipeline

        return getattr(pipeline, name)
    if name == "__version__":
        return opensora.runtime.versions()["opensora"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
