"""`opensora generate "an elephant on a sky blue background"`: sentences become videos."""

from opensora.generate.options import GenerateOptions, prepare

OPTIONS = GenerateOptions
POSITIONAL = "text_prompt"


def run(options: GenerateOptions) -> None:
    job = prepare(options)
    # Brings MindSpore in, which takes seconds: only after the arguments were found good.
    from opensora.generate.run import generate

    generate(job)
