"""Which evolved prompts enter the pool: every one that is set aside keeps its record and gets a reason.

evolved    "Add 2 and 3."   "add  2 and 3."                    ""
           admitted         duplicate of an evolved prompt     empty

The rules, in this order; the first that a prompt breaks is its reason:

1. "empty"
2. "refusal": it opens as a model does that will not write a prompt
3. "leaked instruction": our tags, 8 words in a row of our message to the evolver, or a phrase such as "rewritten prompt:"
4. "shorter than N characters", "longer than N characters", not counting white space at the ends
5. "duplicate of a base prompt", "duplicate of an evolved prompt": equal but for case and white space; with the rule off,
   identical, since the id is that of the text and no two prompts may have the same
6. "near-duplicate of a base prompt", "near-duplicate of an evolved prompt": much the same runs of three words
7. "contains an evaluation question": see `contamination`

Of two evolved prompts that duplicate each other the first is admitted.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from eva_hpc.method import contamination, evolving
from eva_hpc.store.records import Prompt

if TYPE_CHECKING:
    from datasketch import MinHash

_RUN = 8
_OURS = frozenset(run for text in evolving.WORDING for run in contamination.runs(contamination.words(text), _RUN))
_TELL_TALE = re.compile(
    r"\b(?:given|new)_prompt\b|(?:\bthe|#) ?given prompt\b|\bnew prompt ?:|\b(?:rewritten|evolved) prompt\b", re.IGNORECASE
)

_SHINGLE = 3
# Signs of arithmetic count as words: 2 + 3 and 2 - 3 are different tasks.
_TOKEN = re.compile(contamination.WORD + "|[-+*/=<>^%]")
_PERMUTATIONS = 128
_MISSED = 1e-4
_MARGIN = 0.2  # at least 4.5 standard errors of a similarity that is estimated from so many permutations
_PIECE = 4096


class Rules(Protocol):
    """What an evolved prompt must be; the section `admission` of a recipe."""

    @property
    def refusals(self) -> bool:
        """Whether refusals are set aside."""

    @property
    def leaked_instructions(self) -> bool:
        """Whether what repeats the instruction is set aside."""

    @property
    def min_chars(self) -> int:
        """The shortest length in characters."""

    @property
    def max_chars(self) -> int:
        """The longest length in characters."""

    @property
    def duplicates(self) -> bool:
        """Whether prompts that are equal but for case and white space are set aside."""

    @property
    def near_duplicates(self) -> float | None:
        """The Jaccard similarity of 3-shingles from which on a prompt is a near-duplicate, in (0, 1]; None: off."""

    @property
    def contamination(self) -> float | None:
        """The share of an evaluation question, in (0, 1], from which on a prompt contains it; None: off."""


class SetAsidePrompt(Prompt):
    """A prompt that was not admitted, and why.

    `of` is what it repeats, if that is the reason: the id of a prompt, words of the instruction, opening words of a question.
    """

    reason: str
    of: str | None


def normalised(text: str) -> str:
    """The text as duplicates are compared: Unicode NFKC, lower case, every run of white space one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def admit(
    base: Iterable[Prompt], evolved: Iterable[Prompt], rules: Rules, questions: Iterable[str] = ()
) -> tuple[list[Prompt], list[SetAsidePrompt]]:
    """Split evolved prompts into those admitted and those set aside, both in the order given.

    Args:
        base: the prompts that the pool already has.
        evolved: the prompts to be judged.
        rules: which rules hold, and their limits.
        questions: the evaluation questions; each turn of a dialogue is one.
    """
    known: list[_Exact | _Near] = [_Exact(normalised if rules.duplicates else str)]
    if rules.near_duplicates is not None:
        known.append(_Near(rules.near_duplicates))
    for prompt in base:
        for memory in known:
            memory.add(prompt, "a base prompt")
    index = contamination.Index(questions) if rules.contamination is not None else None

    def problem(prompt: Prompt) -> tuple[str, str | None] | None:
        """The reason and what the prompt repeats, or None."""
        text = prompt["prompt"]
        length = len(text.strip())
        if not length:
            return "empty", None
        if rules.refusals and evolving.refuses(text):
            return "refusal", None
        if rules.leaked_instructions and (leak := leaked(text)):
            return "leaked instruction", leak
        if length < rules.min_chars:
            return f"shorter than {rules.min_chars} characters", None
        if length > rules.max_chars:
            return f"longer than {rules.max_chars} characters", None
        for memory in known:
            if found := memory.find(text):
                return found
        if index is not None and rules.contamination is not None and (question := index.match(text, rules.contamination)):
            return "contains an evaluation question", question
        return None

    admitted: list[Prompt] = []
    set_aside: list[SetAsidePrompt] = []
    for prompt in evolved:
        found = problem(prompt)
        if found is None:
            admitted.append(prompt)
            for memory in known:
                memory.add(prompt, "an evolved prompt")
        else:
            reason, of = found
            set_aside.append({**prompt, "reason": reason, "of": of})
    return admitted, set_aside


def leaked(text: str) -> str:
    """The words of the instruction to the evolver, or about it, that a prompt repeats; "" if there are none."""
    found = _TELL_TALE.search(text)
    if found:
        return found[0]
    return next((run for run in contamination.runs(contamination.words(text), _RUN) if run in _OURS), "")


def shingles(text: str) -> frozenset[str]:
    """All runs of three words of a text; of fewer than three, the words."""
    words = _TOKEN.findall(unicodedata.normalize("NFKC", text).casefold())
    return frozenset(contamination.runs(words, _SHINGLE) if len(words) >= _SHINGLE else words)


class _Exact:
    """Prompts by what is compared of their texts."""

    def __init__(self, compared: Callable[[str], str]) -> None:
        self._compared = compared
        self._known: dict[str, tuple[str, str]] = {}

    def add(self, prompt: Prompt, kind: str) -> None:
        self._known.setdefault(self._compared(prompt["prompt"]), (f"duplicate of {kind}", prompt["id"]))

    def find(self, text: str) -> tuple[str, str] | None:
        return self._known.get(self._compared(text))


class _Near:
    """Prompts by their shingles. MinHash proposes candidates, their exact similarity decides.

    A pair that is just as similar as the limit s is missed with probability (1 - s^r)^b for b bands of r rows (Leskovec et
    al., "Mining of Massive Datasets", section 3.4): below 1e-4 here, for limits from 0.07 on; the more similar, the less.
    """

    def __init__(self, least: float) -> None:
        import numpy as np
        from datasketch import MinHash, MinHashLSH

        rows = next((r for r in range(_PERMUTATIONS // 2, 1, -1) if (1 - least**r) ** (_PERMUTATIONS // r) < _MISSED), 1)
        bands = (_PERMUTATIONS // rows, rows)
        self._least = least
        self._blank = MinHash(num_perm=_PERMUTATIONS, seed=1, hashfunc=zlib.crc32)
        self._lsh = MinHashLSH(num_perm=_PERMUTATIONS, params=bands, storage_config={"type": "dict", "basename": b"prompts"})
        self._known: list[tuple[str, Prompt]] = []
        self._sketches = np.zeros((1024, _PERMUTATIONS), dtype=self._blank.hashvalues.dtype)
        self._shingles = lru_cache(maxsize=_PIECE)(shingles)

    def add(self, prompt: Prompt, kind: str) -> None:
        import numpy as np

        key, sketch = len(self._known), self._sketch(prompt["prompt"])
        if key == len(self._sketches):
            self._sketches = np.concatenate((self._sketches, np.zeros_like(self._sketches)))
        self._sketches[key] = sketch.hashvalues
        self._lsh.insert(key, sketch)
        self._known.append((kind, prompt))

    def find(self, text: str) -> tuple[str, str] | None:
        """A base prompt rather than an evolved one, then the most similar."""
        own = self._shingles(text)
        found: list[tuple[bool, float, str, str]] = []
        for key in self._candidates(text) if own else ():
            kind, prompt = self._known[key]
            other = self._shingles(prompt["prompt"])
            common = len(own & other)
            similarity = common / (len(own) + len(other) - common)
            if similarity >= self._least:
                found.append((kind != "a base prompt", -similarity, prompt["id"], kind))
        if not found:
            return None
        _, _, prompt_id, kind = min(found)
        return f"near-duplicate of {kind}", prompt_id

    def _candidates(self, text: str) -> list[int]:
        """Those in a common bucket, many where all prompts follow a template, that seem similar enough."""
        sketch = self._sketch(text)
        keys = self._lsh.query(sketch)
        estimates = (self._sketches[keys] == sketch.hashvalues).mean(axis=1) if keys else ()
        return [key for key, estimate in zip(keys, estimates, strict=True) if estimate >= self._least - _MARGIN]

    def _sketch(self, text: str) -> MinHash:
        hashed = [shingle.encode() for shingle in self._shingles(text)]
        sketch = self._blank.copy()
        for start in range(0, len(hashed), _PIECE):
            sketch.update_batch(hashed[start : start + _PIECE])
        return sketch
