"""The evaluation questions among a stage's inputs: texts that no prompt may contain."""

from __future__ import annotations

from eva_hpc.stages.contract import Inputs
from eva_hpc.store.records import read_jsonl


def held_out_questions(inputs: Inputs) -> list[str]:
    """Every turn of every question of the inputs ``questions_0``, ``questions_1``, …."""
    folders = [folder for role, folder in sorted(inputs.items()) if role.startswith("questions_")]
    return [turn for folder in folders for question in read_jsonl(folder / "questions.jsonl") for turn in question["turns"]]
