"""`opensora plot runs/a runs/b`: plot the curves of training runs."""

from opensora.console import say
from opensora.train.plot import PlotOptions, plot

OPTIONS = PlotOptions
POSITIONAL = "runs"


def run(options: PlotOptions) -> None:
    say(plot(options))
