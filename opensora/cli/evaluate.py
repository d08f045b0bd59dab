"""`opensora evaluate`: how alike the videos of two folders are."""

from opensora.metrics.options import EvaluateOptions

OPTIONS = EvaluateOptions
POSITIONAL = None


def run(options: EvaluateOptions) -> int:
    from opensora.metrics.evaluate import evaluate

    return evaluate(options)
