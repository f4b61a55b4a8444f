"""Length and complexity of a prompt's text, by counting; and how varied the words of a set of prompts are.

    "Name three rivers, and for each give its length. Use at most 50 words."
    words 14   sentences 2   clauses 3   constraints 2 ("each", "at most")   numbers 1   list_items 0

The counts are proxies. They see that a prompt asks for more, not that what it asks is harder, and the word lists are English.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE_END = re.compile(r"(?:[.!?]+(?=\s|$)|[。！？]+|\n+)")
_CLAUSE_END = re.compile(
    r"[.!?]+(?=\s|$)|[。！？；：]+|\n+|[;:](?=\s|$)"
    r"|,\s+(?=(?:and|but|or|nor|so|yet|then|which|who)\b)"
    r"|\s(?=(?:because|if|when|while|although|though|where|unless|until|whereas|so that|such that)\b)",
    re.IGNORECASE,
)
_LIST_ITEM = re.compile(r"^[ \t]*(?:[-*•‣]|\(?(?:\d{1,3}|[a-zA-Z])[.)])[ \t]+\S", re.MULTILINE)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_CONSTRAINT = re.compile(
    r"\b(?:must|should|shall|cannot|(?:need|have|has)\s+to|at\s+(?:least|most)|(?:no|not)\s+(?:more|less|fewer|longer|shorter)\s+than"
    r"|up\s+to|exactly|only|without|never|avoid|exclude|excluding|include|including|ensure|make\s+sure|limit(?:ed)?"
    r"|within|maximum|minimum|each|every|both|except|don['’]t|do\s+not)\b",
    re.IGNORECASE,
)


def words(text: str) -> list[str]:
    """The words in lower case: runs of letters and digits, inner apostrophes and hyphens included.

    A run of Chinese or Japanese counts as one word: look at the characters there.
    """
    return [word.lower() for word in _WORD.findall(text)]


def sentences(text: str) -> int:
    """Pieces between full stops, question and exclamation marks and line breaks that hold a word. "e.g. this" counts as two."""
    return _pieces(_SENTENCE_END, text)


def clauses(text: str) -> int:
    """Pieces between sentence ends, colons, semicolons, and the conjunctions and relative words that usually begin a clause.

    Stands for the number of things asked for. Verbs are not looked at, so that a comma before "and" in a list counts too.
    """
    return _pieces(_CLAUSE_END, text)


def constraints(text: str) -> int:
    """Expressions that limit the answer, such as must, at least, without, each. A list of English ones; others are not seen."""
    return len(_CONSTRAINT.findall(text))


def list_items(text: str) -> int:
    """Lines that begin with a bullet, or with a number or letter and a full stop or bracket."""
    return len(_LIST_ITEM.findall(text))


def numbers(text: str) -> int:
    """Numbers in digits; 1,000.5 is one, "three" none."""
    return len(_NUMBER.findall(text))


def text_measures(text: str) -> dict[str, int]:
    """All of these by name, and the characters."""
    return {
        "words": len(words(text)),
        "characters": len(text),
        "sentences": sentences(text),
        "clauses": clauses(text),
        "constraints": constraints(text),
        "list_items": list_items(text),
        "numbers": numbers(text),
    }


def n_grams(texts: Iterable[Sequence[str]], n: int) -> Iterator[tuple[str, ...]]:
    """Runs of n words, text by text; none reaches from one text into the next."""
    for text in texts:
        yield from zip(*(text[start:] for start in range(n)), strict=False)


def distinct(texts: Sequence[Sequence[str]], n: int, limit: int | None = None) -> float | None:
    """Distinct-n: different n-grams over all n-grams of the texts (Li et al. 2016, arXiv 1510.03055); None without any.

    The ratio falls with the amount of text, so only sets that were cut to the same number of n-grams compare: `limit`. Which
    n-grams are left then depends on the order of the texts.
    """
    found = list(islice(n_grams(texts, n), limit))
    return len(set(found)) / len(found) if found else None


def _pieces(boundary: re.Pattern[str], text: str) -> int:
    return sum(1 for piece in boundary.split(text) if _WORD.search(piece))
