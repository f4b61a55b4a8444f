"""docs/chaos.md: what became of each case, by its ledger and by what its processes noted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from tests.cluster.chaos.outcome import Story

HEAD = """# What was disturbed, and what became of it

`make chaos` does this to a real Slurm on one machine, real training included, and writes this page. Each case is a sweep that
is hit while it runs. It must end by itself, or when the same command is typed again, with every file of every artifact and the
tables byte for byte as of a sweep that nobody disturbed; with every record there once; with no chunk made twice, and no more
training steps repeated than lie between two checkpoints (3 s apart here).

- **ledger**: what the sweep's own ledger says: the cause, and what was done about it.
- **attempts**: starts of a Slurm job. **typed**: how often the command was.
- **done again**: work that had to be repeated, and the seconds that training had spent on it.

"""


def write(stories: Sequence[Story], path: Path) -> None:
    """Write the page."""
    rows = [
        [
            story.case,
            "; ".join(_counted(story.words)) or "–",
            story.attempts,
            story.typed,
            story.repeated or "–",
            f"{story.seconds:.1f}",
            "yes" if story.identical else "**no**",
        ]
        for story in stories
    ]
    headers = ["case", "ledger", "attempts", "typed", "done again", "seconds", "identical"]
    path.write_text(HEAD + tabulate(rows, headers, tablefmt="github", disable_numparse=True) + "\n")


def _counted(words: Sequence[str]) -> list[str]:
    """Each told once, in the order of the first: ["timeout: requeued ×3", "timeout: restarted ×3"]."""
    return [f"{word} ×{count}" if count > 1 else word for word, count in Counter(words).items()]
