"""Clean captions and prompts as in the training of the released weights.

The rules are those of DeepFloyd IF for captions from the web: they remove addresses, markup and codes, and
unify punctuation. Their order matters; `clean_caption` shows it, with the three steps that are not
substitutions.
"""

import html
import re
import warnings
from collections.abc import Iterable
from re import Pattern
from urllib.parse import unquote_plus

import ftfy
from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning
from bs4.builder import ParserRejectedMarkup

Rule = tuple[Pattern[str], str]
LONGEST_MARKUP, MARKUP_PIECE = 4096, 1024  # characters


def _rules(*pairs: tuple[str, str]) -> tuple[Rule, ...]:
    return tuple((re.compile(pattern), replacement) for pattern, replacement in pairs)


_DOMAIN = r"[a-zA-Z0-9.\-]{1,253}[.](?:com|co|ru|net|org|edu|gov|it)[\w/-]*\b\/?(?!@)"
_FILE_TYPES = r"(?:png|jpg|jpeg|bmp|webp|eps|pdf|apk|mp4)"
_CHINESE = r"\u31c0-\u31ef\u31f0-\u31ff\u3200-\u32ff\u3300-\u33ff\u3400-\u4dbf\u4dc0-\u4dff\u4e00-\u9fff"
_DASHES = (
    r"\-\u058a\u05be\u1400\u1806\u2010-\u2015\u2e17\u2e1a\u2e3a"
    r"\u2e3b\u2e40\u301c\u3030\u30a0\ufe31\ufe32\ufe58\ufe63\uff0d"
)

ADDRESSES = _rules(
    ("<person>", "person"),
    (rf"\b(?:https?:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_DOMAIN})", ""),
    (rf"\b(?:www:(?:\/{{1,3}}|[a-zA-Z0-9%])|{_DOMAIN})", ""),
)
CHARACTERS = _rules(
    (r"@[\w\d]+\b", ""),  # user names
    (rf"[{_CHINESE}]+", ""),
    (f"[{_DASHES}]+", "-"),
    ("[`´«»“”¨]", '"'),  # noqa: RUF001
    ("[‘’]", "'"),  # noqa: RUF001
    ("&quot;?", ""),
    ("&amp", ""),
    (r"\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}", " "),  # network addresses
    (r"\d:\d\d\s+$", ""),
    (r"\\n", " "),
    (r"#\d{1,3}\b", ""),
    (r"#\d{5,}\b", ""),
    (r"\b\d{6,}\b", ""),
    (rf"(?<!\S)\S+\.{_FILE_TYPES}", ""),
    (r"[\"']{2,}", '"'),
    (r"\.{2,}", " "),
    (r"[#®•©™&@·º½¾¿¡§~)(\]\[}{|\\/*]+", " "),
    (r"(?<!\s)\s+\.\s+", " "),
)
WORD_JOINTS = re.compile(r"[-_]")
ADVERTISEMENTS = _rules(
    (r"\b[a-zA-Z]{1,3}\d{3,15}\b", ""),  # product codes: jc6640
    (r"\b[a-zA-Z]++\d++[a-zA-Z]++\b", ""),
    (r"\b\d++[a-zA-Z]++\d++\b", ""),
    (r"(worldwide\s+)?(free\s+)?shipping", ""),
    (r"(free\s)?download(\sfree)?", ""),
    (r"\bclick\b\s(?:for|on)\s\w+", ""),
    (rf"\b{_FILE_TYPES}(\simage[s]?)?", ""),
    (r"\bpage\s+\d+\b", ""),
    (r"\b\d*+[a-zA-Z]++\d++[a-zA-Z]++\d++[a-zA-Z\d]*+\b", " "),
    (r"\b\d++(?:\.\d*+)?[xх×]\d++(?:\.(?:\d++\b|\b)|\b)", ""),  # noqa: RUF001  50x40 in three scripts
    (r"\b\s+:\s+", ": "),
    (r"(\D[,./])\b", r"\1 "),
    (r"\s+", " "),
)
ENDS = _rules(
    (r"^[\"']([\w\W]+)[\"']$", r"\1"),
    (r"^['_,\-:;]", ""),
    (r"['_,\-:+]$", ""),
    (r"^\.\S+$", ""),
)


def clean_caption(caption: str, sampling: bool = False) -> str:
    """The caption in lower case without addresses, markup, codes and stray punctuation.

    It is cleaned twice, because the result of the first pass may match a rule again. `sampling` follows the
    reference's sampler, which differs from its training in one detail: it does not strip spaces before the
    last rules. Every text has a result, and time grows with its length only.
    """
    for _ in range(2):
        text = _substitute(ADDRESSES, unquote_plus(_without_surrogates(caption)).strip().lower())
        text = _substitute(CHARACTERS, _without_markup(text))
        if len(WORD_JOINTS.findall(text)) > 3:  # names written as this-is-my-cat
            text = WORD_JOINTS.sub(" ", text)
        text = html.unescape(html.unescape(ftfy.fix_text(text)))
        text = _substitute(ADVERTISEMENTS, text if sampling else text.strip())
        caption = _substitute(ENDS, text).strip()
    return caption


def _without_surrogates(text: str) -> str:
    """The text with surrogate pairs joined, and lone ones, which no encoding holds, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _without_markup(text: str) -> str:
    """The text outside of HTML tags. The parser takes quadratic time, so long texts are parsed in pieces."""
    if "<" not in text and "&" not in text:
        return text
    pieces, start = [], 0
    while len(text) - start > LONGEST_MARKUP:
        end = start + MARKUP_PIECE
        cut = max(text.rfind("<", start + 1, end), text.rfind(" ", start + 1, end))
        end = cut if cut > 0 else end
        pieces.append(text[start:end])
        start = end
    return "".join(map(_parse_markup, [*pieces, text[start:]]))


def _parse_markup(text: str) -> str:
    with warnings.catch_warnings():
        # The parser warns of captions that look like file names.
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        try:
            return BeautifulSoup(text, features="html.parser").text
        except ParserRejectedMarkup:  # a declaration such as "<![" that does not end
            return BeautifulSoup(text.replace("<!", "&lt;!"), features="html.parser").text


def _substitute(rules: Iterable[Rule], text: str) -> str:
    for pattern, replacement in rules:
        text = pattern.sub(replacement, text)
    return text
