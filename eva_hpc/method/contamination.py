"""Whether a prompt contains an evaluation question, so that training on it would be training on the test.

Compared are words (Unicode NFKC, lower case, no punctuation). A prompt contains a question that

- has the same words;
- has 8 words or more and stands in the prompt, whatever is around it;
- has a share of its words in runs of 8 words that stand in the prompt as well: with 0.5, a question of 20 words of which the
  first 10 were kept.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

# Scripts that put no spaces between words: each character is a word of its own.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+"
_WORD = re.compile(WORD)


def words(text: str) -> list[str]:
    """The words of a text in lower case; a character of Chinese or Japanese is a word."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def runs(of: list[str], length: int) -> Iterator[str]:
    """All runs of `length` consecutive words, from left to right; none if there are fewer."""
    return (" ".join(of[start : start + length]) for start in range(len(of) - length + 1))


class Index:
    """Evaluation questions, to be looked up by any prompt.

    Args:
        questions: their texts; for one of several turns, each turn is a question.
        run: length in words of the runs that count as common.
    """

    def __init__(self, questions: Iterable[str], run: int = 8) -> None:
        self._run = run
        self._texts: list[str] = []
        self._lengths: list[int] = []
        self._same: dict[str, int] = {}
        self._places: dict[str, list[tuple[int, int]]] = {}
        for text in dict.fromkeys(questions):
            question = words(text)
            if not question:
                continue
            number = len(self._texts)
            self._texts.append(text)
            self._lengths.append(len(question))
            self._same.setdefault(" ".join(question), number)
            for place, common in enumerate(runs(question, run)):
                self._places.setdefault(common, []).append((number, place))

    def match(self, text: str, share: float) -> str | None:
        """The opening words of the question that a prompt contains, the one with the largest share; None if there is none.

        Args:
            text: the prompt.
            share: of a question's words, above 0 and at most 1, that must stand in runs common with the prompt. A question that
                the prompt contains as a whole has all of them there.
        """
        prompt = words(text)
        same = self._same.get(" ".join(prompt))
        if same is not None:
            return _opening(self._texts[same])
        covered: dict[int, set[int]] = {}
        for common in set(runs(prompt, self._run)):
            for number, place in self._places.get(common, ()):
                covered.setdefault(number, set()).update(range(place, place + self._run))
        shares = {number: len(places) / self._lengths[number] for number, places in covered.items()}
        best = max(shares, key=lambda number: (shares[number], -number), default=None)
        return None if best is None or shares[best] < share else _opening(self._texts[best])


def _opening(text: str, words: int = 8) -> str:
    first = text.split()
    return " ".join(first[:words]) + (" …" if len(first) > words else "")
