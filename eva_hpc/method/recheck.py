"""Which evolved prompts are still informative: those that reach a quantile of what the base prompts reach.

base {"x": 0.0, "y": 0.2, "z": 0.6}, quantile 0.5   ->   at least 0.2: {"a": 0.2, "b": 0.1} keeps a and drops b
"""

from __future__ import annotations

import math
from collections.abc import Mapping


def still_informative(children: Mapping[str, float], base: Mapping[str, float], quantile: float) -> tuple[list[str], list[str]]:
    """The ids of children to keep and to drop, both in the order given: kept is what reaches the quantile of the base prompts.

    After ACCEL (arXiv 2203.01302), which keeps an edited level only if its estimated regret is high enough.

    Args:
        children: evolved prompt id -> informativeness under the current policy.
        base: base prompt id -> the same metric. One that is scaled over the prompts (`inv_…`) is measured over both together.
        quantile: in [0, 1], with linear interpolation; 0 asks for as much as the least informative base prompt, 1 as the most.

    Raises:
        ValueError: the quantile is outside [0, 1], there are no base prompts, or a value is not a finite number.
    """
    import numpy as np

    if not 0 <= quantile <= 1:
        raise ValueError(f"the quantile is {quantile}: it must be between 0 and 1")
    if not base:
        raise ValueError("there are no base prompts to compare the evolved ones with")
    for prompt_id, value in (*base.items(), *children.items()):
        if not math.isfinite(value):
            raise ValueError(f"prompt {prompt_id}: its informativeness is {value}, not a finite number")
    threshold = float(np.quantile(list(base.values()), quantile))
    kept = [prompt_id for prompt_id, value in children.items() if value >= threshold]
    return kept, [prompt_id for prompt_id, value in children.items() if value < threshold]
