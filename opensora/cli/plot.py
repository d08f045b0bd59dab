"""`opensora plot runs/a runs/b`: draw the curves of runs."""

from opensora.train.plot import PlotOptions, plot

OPTIONS = PlotOptions
POSITIONAL = "runs"


def run(options: PlotOptions) -> None:
    print(plot(options))
