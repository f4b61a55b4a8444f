"""The lab's own measures of a prompt. Its tasks can be read back, so these are exact where texts in general have proxies.

"Reverse then Upper: kapol"    steps 2   content_length 5   sensible True
"Please reverse kapol"         steps None   content_length None   sensible False
"""

from __future__ import annotations

from typing import TypedDict

from eva_hpc.lab.tasks import parse
from eva_hpc.lab.tasks import sensible as is_sensible


class LabMeasures(TypedDict):
    """Complexity (steps, and letters or numbers of the content) and quality (whether the task is worth asking)."""

    steps: int | None
    content_length: int | None
    sensible: bool


def lab_measures(prompt: str) -> LabMeasures:
    """Of one prompt; what is no lab task has neither steps nor content and is not sensible."""
    try:
        task = parse(prompt)
    except ValueError:
        return LabMeasures(steps=None, content_length=None, sensible=False)
    return LabMeasures(steps=len(task.steps), content_length=task.length, sensible=is_sensible(task))
