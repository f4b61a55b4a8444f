"""The lab's rewriter of responses: mends the first mistake of a flawed answer, most of the time.

Reverse: kapol      lopka  ->  lopak (exact, the reward 1)      loopk  ->  lopk
"""

from __future__ import annotations

import random

from eva_hpc.lab.checker import answer as exact_answer
from eva_hpc.lab.checker import edit_distance
from eva_hpc.store.seeds import derive_seed

CORRECTED = 0.8
"""The probability that a flawed answer is mended."""


def improve(prompt: str, answer: str, seed: int) -> str:
    """The answer, with probability `CORRECTED` one character nearer to the exact one; never a worse one.

    It inserts, deletes or replaces one character at the first mistake, so that the edit distance falls by 1.

    Raises:
        ValueError: the prompt is no lab task, such as the second turn of a dialogue.
    """
    exact = exact_answer(prompt)
    if answer == exact or random.Random(derive_seed("improve", prompt, answer, seed)).random() >= CORRECTED:
        return answer
    same = next((i for i, (a, b) in enumerate(zip(answer, exact, strict=False)) if a != b), min(len(answer), len(exact)))
    good, right, rest = exact[:same], exact[same : same + 1], answer[same:]
    # A shortest way from the answer to the exact one starts, after what they have in common, with one of these.
    return min((good + right + rest[1:], good + rest[1:], good + right + rest), key=lambda text: edit_distance(text, exact))
