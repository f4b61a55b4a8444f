"""The 17 families of tasks: what each takes, what it gives, and how its answer is computed.

Content is a word of lower-case letters (``kapol``) or a list of digits (``4 1 7``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["word", "list", "number"]

VOWELS = "aeiou"
LETTERS = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Family:
    """One operation. `solve` takes the content and the argument ("" if the family takes none)."""

    name: str
    takes: Kind
    gives: Kind
    solve: Callable[[str, str], str]
    takes_letter: bool = False


def _next_letter(letter: str) -> str:
    following = LETTERS[(LETTERS.index(letter.lower()) + 1) % len(LETTERS)]
    return following.upper() if letter.isupper() else following


def _words(name: str, solve: Callable[[str], str]) -> Family:
    return Family(name, "word", "word", lambda content, _: solve(content))


def _lists(name: str, gives: Kind, solve: Callable[[list[str]], str]) -> Family:
    return Family(name, "list", gives, lambda content, _: solve(content.split()))


FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        _words("Copy", lambda word: word),
        _words("Reverse", lambda word: word[::-1]),
        _words("Upper", str.upper),
        _words("Next", lambda word: "".join(map(_next_letter, word))),
        _words("Stutter", lambda word: "".join(letter * 2 for letter in word)),
        _words("Skip", lambda word: word[::2]),
        _words("Unvowel", lambda word: "".join(letter for letter in word if letter.lower() not in VOWELS)),
        _words("Rotate", lambda word: word[1:] + word[:1]),
        _words("Alphabetise", lambda word: "".join(sorted(word))),
        _lists("Ascend", "list", lambda numbers: " ".join(sorted(numbers))),
        _lists("Flip", "list", lambda numbers: " ".join(reversed(numbers))),
        _lists("Largest", "number", max),
        _lists("Smallest", "number", min),
        _lists("First", "number", lambda numbers: numbers[0]),
        _lists("Last", "number", lambda numbers: numbers[-1]),
        _lists("Length", "number", lambda numbers: str(len(numbers))),
        Family("Count", "word", "number", lambda word, letter: str(word.lower().count(letter)), takes_letter=True),
    )
}
