"""`opensora generate-class elephant --model_path runs/classes`: generate videos of classes."""

from opensora.generate.classes import GenerateClassOptions, prepare

OPTIONS = GenerateClassOptions
POSITIONAL = "label"


def run(options: GenerateClassOptions) -> None:
    job = prepare(options)
    # Imports MindSpore, which takes seconds: only after the options are checked.
    from opensora.generate.class_videos import generate_class

    generate_class(job)
