"""`opensora generate "an elephant on a sky blue background"`: generate videos from text."""

from opensora.generate.options import GenerateOptions, prepare

OPTIONS = GenerateOptions
POSITIONAL = "text_prompt"


def run(options: GenerateOptions) -> None:
    job = prepare(options)
    # Imports MindSpore, which takes seconds: only after the options are checked.
    from opensora.generate.run import generate

    generate(job)
