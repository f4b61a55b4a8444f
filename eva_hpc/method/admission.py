"""Which evolved prompts enter the pool: every one that is set aside keeps its record and gets a reason.

evolved    "Add 2 and 3."   "add  2 and 3."                    ""
           admitted         duplicate of an evolved prompt     empty
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from eva_hpc.store.records import Prompt


class SetAsidePrompt(Prompt):
    """A prompt that was not admitted, and why."""

    reason: str


def normalised(text: str) -> str:
    """The text as duplicates are compared: Unicode NFKC, lower case, every run of white space one space, none at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def admit(base: Iterable[Prompt], evolved: Iterable[Prompt], max_chars: int) -> tuple[list[Prompt], list[SetAsidePrompt]]:
    """Split evolved prompts into those admitted and those set aside, both in the order given.

    Reasons: "empty"; "longer than N characters"; "duplicate of a base prompt"; "duplicate of an evolved prompt", where the
    first of its kind is admitted.
    """
    of_base = {normalised(prompt["prompt"]) for prompt in base}
    seen: set[str] = set()
    admitted: list[Prompt] = []
    set_aside: list[SetAsidePrompt] = []
    for prompt in evolved:
        text = normalised(prompt["prompt"])
        if not text:
            reason = "empty"
        elif len(prompt["prompt"]) > max_chars:
            reason = f"longer than {max_chars} characters"
        elif text in of_base:
            reason = "duplicate of a base prompt"
        elif text in seen:
            reason = "duplicate of an evolved prompt"
        else:
            seen.add(text)
            admitted.append(prompt)
            continue
        set_aside.append({**prompt, "reason": reason})
    return admitted, set_aside
