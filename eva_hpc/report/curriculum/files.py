"""The data files of a curriculum: each is written as a whole or not at all, and the same input gives the same bytes.

prompts.jsonl     a line for each run, part, set and prompt
summary.csv       a line for each run, part and set, with the axes of the sweep as columns; summary.jsonl is the same
admission.csv     a line for each run, part, stage of admission and reason
about.json        what every column means, how prompts were embedded, who judged, and what is not there yet
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from eva_hpc.report.curriculum.collect import AdmissionRow
from eva_hpc.report.curriculum.columns import OF_A_PROMPT, OF_A_PROMPT_ONLY, OF_A_SET
from eva_hpc.store.artifacts import write_atomically
from eva_hpc.store.records import write_jsonl

Row = Mapping[str, Any]


def write_prompts(folder: Path, rows: Iterable[Row]) -> Path:
    """Write prompts.jsonl as the rows come: of a large sweep they do not fit into memory."""
    path = folder / "prompts.jsonl"
    write_jsonl(path, rows)
    return path


def write_summary(folder: Path, rows: Sequence[Row]) -> list[Path]:
    """Write summary.jsonl and summary.csv."""
    lines = folder / "summary.jsonl"
    write_jsonl(lines, rows)
    return [lines, _write_csv(folder / "summary.csv", [_flat(row) for row in rows])]


def write_admission(folder: Path, rows: Iterable[AdmissionRow]) -> Path:
    """Write admission.csv. `read` are the prompts that the stage looked at; the reason "kept" has those it let through."""
    flat = []
    for row in rows:
        run, part = row.part.run, row.part
        place = {"run": run.name, "point": run.point, "seed": run.seed, "part": part.name, "round": part.number}
        flat.append(_flat({**place, "stage": row.stage, "reason": row.reason, "count": row.count, "read": row.read}))
    return _write_csv(folder / "admission.csv", flat)


def write_about(
    folder: Path, *, embedder: str, topics: int, judged: str, figures: Mapping[str, str], missing: Sequence[str]
) -> Path:
    """Write about.json; `figures` has the captions by name."""
    about = {
        "embeddings": embedder,
        "topics": f"k-means with {topics} clusters over all prompts of a run",
        "judged": judged,
        "figures": dict(figures),
        "missing": list(missing),
        "columns": {
            "of a prompt, in a summary the mean": OF_A_PROMPT,
            "of a prompt only": OF_A_PROMPT_ONLY,
            "of a set": OF_A_SET,
        },
    }
    path = folder / "about.json"
    write_atomically(path, orjson.dumps(about, option=orjson.OPT_INDENT_2))
    return path


def _flat(row: Row) -> dict[str, Any]:
    """The row with the axes of its point as columns."""
    return {
        name: value for column, item in row.items() for name, value in (item if column == "point" else {column: item}).items()
    }


def _write_csv(path: Path, rows: Sequence[Row]) -> Path:
    """What is not known is empty; numbers are in full precision."""
    names = dict.fromkeys(name for row in rows for name in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())
    return path
