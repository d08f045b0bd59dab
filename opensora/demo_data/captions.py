"""Captions of the demo data set: a subject on a colour, and the same clip in other words.

    captions("varied", ("jack-o-lantern", "red"), scale=0.76)
    # "a jack-o-lantern on a red background", "a small pumpkin on a red background", ...

The shipped model was trained on sentences; the evaluation asks for them.
"""

from typing import Literal

Wording = Literal["sentence", "varied", "subject"]
SMALL, BIG = 0.83, 0.92
"""Scales below and above which a clip's subject has a size: thirds of the scales that are drawn."""
SIZES = {"small": ("small", "little"), "big": ("big", "large")}
SYNONYMS = {
    "alien monster": ("space invader",),
    "bactrian camel": ("camel",),
    "beer mug": ("mug of beer",),
    "birthday cake": ("cake",),
    "camera with flash": ("camera",),
    "dog face": ("dog",),
    "extraterrestrial alien": ("grey alien",),
    "father christmas": ("santa claus",),
    "fire": ("flame",),
    "frog face": ("frog",),
    "hatching chick": ("chick",),
    "heart with ribbon": ("heart",),
    "honeybee": ("bee",),
    "jack-o-lantern": ("pumpkin",),
    "lady beetle": ("ladybird", "ladybug"),
    "love letter": ("letter with a heart",),
    "panda face": ("panda",),
    "rabbit face": ("rabbit", "bunny"),
    "racing motorcycle": ("motorbike",),
    "rooster": ("cockerel",),
    "sun with face": ("sun",),
    "tropical fish": ("fish",),
}
"""Other names of subjects; no name stands for two of them."""


def caption(subject: str, colour: str) -> str:
    """("elephant", "sky blue") -> "an elephant on a sky blue background"."""
    return f"{_article(subject)} {subject} on {_article(colour)} {colour} background"


def captions(wording: Wording, pair: tuple[str, str], scale: float) -> list[str]:
    """The captions of a clip of a pair, of which training draws one. scale: of the subject, in the frame."""
    subject, colour = pair
    if wording == "subject":
        return [subject]
    if wording == "sentence":
        return [caption(subject, colour)]
    sizes = SIZES["small"] if scale < SMALL else SIZES["big"] if scale > BIG else ()
    names = (subject, *SYNONYMS.get(subject, ()))
    return [caption(f"{size} {name}".strip(), colour) for size in ("", *sizes) for name in names]


def _article(noun: str) -> str:
    return "an" if noun[0] in "aeiou" else "a"
