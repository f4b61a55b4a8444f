"""Records that a stage does not use: kept in ``set_aside.jsonl`` with the reason, and counted, never dropped."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from eva_hpc.store.records import write_jsonl


class SetAside:
    """Collects what is set aside."""

    def __init__(self) -> None:
        self._records: list[dict[str, Any]] = []

    def add(self, reason: str, record: Mapping[str, Any]) -> None:
        """Set one record aside."""
        self._records.append({"reason": reason, **record})

    def counts(self) -> dict[str, int]:
        """How many, by reason."""
        return dict(Counter(record["reason"] for record in self._records))

    def describe(self) -> str:
        """The counts in words."""
        return ", ".join(f"{count} {reason}" for reason, count in self.counts().items()) or "none set aside"

    def write(self, out: Path) -> dict[str, int]:
        """Write the file, if there is anything to write; returns the counts."""
        if self._records:
            write_jsonl(out / "set_aside.jsonl", self._records)
        return self.counts()
