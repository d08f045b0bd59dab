"""`opensora evaluate`: compare two folders of videos."""

from opensora.metrics.options import EvaluateOptions

OPTIONS = EvaluateOptions
POSITIONAL = None


def run(options: EvaluateOptions) -> int:
    from opensora.metrics.evaluate import evaluate

    return evaluate(options)
