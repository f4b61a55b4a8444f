"""Short forms: one word or path in place of a section, e.g. ``policy: lab`` or ``prompts: data/prompts.jsonl``."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

PROMPT_FILES = (".jsonl", ".parquet")


@dataclass(frozen=True)
class Shorthand:
    """Annotation of a section that may be written as text. `expand` gives the section; `allowed` says in words what it takes.

    `expand` raises ValueError, with the reason, for a text that stands for nothing.
    """

    expand: Callable[[str], dict[str, Any]]
    allowed: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Expand text before the section is validated."""
        return core_schema.no_info_before_validator_function(self._expanded, handler(source))

    def _expanded(self, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self.expand(value)
        except ValueError as error:
            raise PydanticCustomError("shorthand", "{reason}", {"reason": str(error)}) from None


def _word(text: str, words: tuple[str, ...], allowed: str) -> None:
    """Refuse a text that is almost one of the words: it would otherwise be taken for a model's name."""
    near = difflib.get_close_matches(text.lower(), words, n=1, cutoff=0.75)
    if not text.strip():
        raise ValueError(f"found {text!r}; must be {allowed}")
    if near and "/" not in text:
        raise ValueError(f"found {text!r}; must be {allowed}; did you mean '{near[0]}'?")


def _policy(text: str) -> dict[str, Any]:
    if text in ("lab", "pretrained"):
        return {"kind": text}
    _word(text, ("lab", "pretrained"), POLICY.allowed)
    return {"kind": "pretrained", "path": text}


def _prompts(text: str) -> dict[str, Any]:
    if text in ("lab", "file", "hub"):
        return {"kind": text}
    if text.endswith(PROMPT_FILES):
        return {"kind": "file", "path": text}
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        raise ValueError(
            f"found {text!r}; must be {PROMPTS.allowed}" + ("; did you mean 'lab'?" if text.lower()[:3] == "lab" else "")
        )
    return {"kind": "hub", "name": text}


def _reward(text: str) -> dict[str, Any]:
    if text in _REWARDS:
        return {"kind": text}
    _word(text, _REWARDS, REWARD.allowed)
    return {"kind": "sequence_classification", "path": text}


def _evolver(text: str) -> dict[str, Any]:
    return _kind(text, ("lab", "policy", "model", "openai", "none"), EVOLVER.allowed)


def _writer(text: str) -> dict[str, Any]:
    return _kind(text, ("lab", "policy", "model", "openai"), WRITER.allowed)


def _rewriter(text: str) -> dict[str, Any]:
    return {"by": _kind(text, ("lab", "policy", "model", "openai"), REWRITER.allowed)}


def _questions(text: str) -> dict[str, Any]:
    if text in _SETS:
        return {"set": text}
    if text.endswith(PROMPT_FILES):
        return {"path": text}
    near = difflib.get_close_matches(text.lower(), _SETS, n=1)
    raise ValueError(f"found {text!r}; must be {QUESTIONS.allowed}" + (f"; did you mean '{near[0]}'?" if near else ""))


def _kind(text: str, kinds: tuple[str, ...], allowed: str) -> dict[str, Any]:
    if text in kinds:
        return {"kind": text}
    near = difflib.get_close_matches(text.lower(), kinds, n=1)
    raise ValueError(f"found {text!r}; must be {allowed}" + (f"; did you mean '{near[0]}'?" if near else ""))


def _benchmark(text: str) -> dict[str, Any]:
    return _kind(text, ("lab", "reward", *_JUDGED), BENCHMARK.allowed)


_SETS = ("alpaca_eval", "arena_hard", "arena_hard_v2", "mt_bench")
_REWARDS = ("lab", "armorm", "pairrm", "sequence_classification", "openai", "ensemble")
_JUDGED = ("alpaca_eval", "arena_hard", "mt_bench")
POLICY = Shorthand(_policy, "lab, or a model's folder or hub name")
PROMPTS = Shorthand(_prompts, "lab, a .jsonl or .parquet file, or a data set's hub name org/name")
REWARD = Shorthand(_reward, "lab, armorm, pairrm, or a reward model's folder or hub name")
EVOLVER = Shorthand(_evolver, "lab, policy or none")
WRITER = Shorthand(_writer, "lab or policy")
REWRITER = Shorthand(_rewriter, "lab, policy, a section with by:, or null for none")
BENCHMARK = Shorthand(_benchmark, "lab, alpaca_eval, arena_hard or mt_bench")
QUESTIONS = Shorthand(_questions, f"{', '.join(_SETS)}, or a .jsonl or .parquet file")
