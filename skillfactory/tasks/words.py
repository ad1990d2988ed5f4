"""English words: what counts as one, and which are common.

A word is what the Hunspell dictionary en_US accepts (spylls, MIT; its word list is SCOWL's). How common it is comes
from the frequency list of symspellpy (MIT), so that questions can be asked of words that people and models know.
"""

import importlib.util
import re
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

LONGEST = 20
# Frequent on the web the list was counted on, and nothing to ask people for; the dictionary marks only some of these.
_IMPOLITE = re.compile(
    r"porno?|nudes?|sex|sex(?:y|es|ist)|anal|tits|boobs?|dildos?|erotica?|escorts?|sluts?|rape[ds]?|xxx|orgy|horny|"
    r"penis|vagina|bondage|orgasm|fetish|hentai|whores?|yid|wog"
)
_FREQUENCIES = "frequency_dictionary_en_82_765.txt"


@cache
def _dictionary() -> Any:
    from spylls.hunspell import Dictionary

    return Dictionary.from_files("en_US")


@lru_cache(maxsize=100_000)
def is_word(text: str) -> bool:
    """Whether the dictionary has this text, in lower case, as a word of the letters a to z."""
    if not (text.isascii() and text.isalpha() and text.islower() and len(text) <= LONGEST):
        return False
    return bool(_dictionary().lookup(text))


@cache
def common(shortest: int, longest: int, n: int = 0) -> tuple[str, ...]:
    """The `n` most frequent words of so many letters, most frequent first; all that the list has where n is 0."""
    fitting = (word for word in _by_frequency() if shortest <= len(word) <= longest)
    polite = (word for word in fitting if not _IMPOLITE.fullmatch(word) and word not in _unwelcome())
    return tuple(islice(filter(is_word, polite), n or None))


def facts() -> dict[str, str]:
    """Where the words come from, for manifests."""
    return {
        "dictionary": f"Hunspell en_US of spylls {version('spylls')}",
        "frequencies": f"{_FREQUENCIES} of symspellpy {version('symspellpy')}",
    }


def _by_frequency() -> Iterator[str]:
    found = importlib.util.find_spec("symspellpy")
    assert found is not None
    assert found.origin is not None
    with (Path(found.origin).parent / _FREQUENCIES).open(encoding="utf-8-sig") as lines:
        for line in lines:
            yield line.partition(" ")[0]


@cache
def _unwelcome() -> frozenset[str]:
    """Words that the dictionary says not to suggest to people."""
    mark = _dictionary().aff.NOSUGGEST
    return frozenset(word.stem.lower() for word in _dictionary().dic.words if mark in word.flags)
