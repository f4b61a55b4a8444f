"""Trainings as a stage, for test_train.py: ``python -m tests.stages.trainings FOLDER MODEL``.

A process can use DeepSpeed once, so each is forked off from one that has imported it. What comes out stays in the store in
FOLDER.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

from eva_hpc.config.optimiser import DPO
from eva_hpc.plan.graph import Node
from eva_hpc.stages import pair, train
from tests.stages.conftest import Workbench, policy_node
from tests.training.scenarios import TOO_LONG, random_pairs

OPTIMISER = DPO(
    beta=0.5,
    learning_rate=1e-3,
    epochs=2,
    batch_size=8,
    max_length=40,
    max_prompt_length=24,
    precision="fp32",
    gradient_checkpointing=False,
)
PAIRS = random_pairs(8)


def pairs_node(name: int) -> Node:
    """A node of pairs."""
    return Node(pair.Spec(responses=2, ratio=0.0, seed=name, round=1), "round 1")


ALL, FIRST, REST = (pairs_node(name) for name in range(3))


def nodes(model: Path) -> dict[str, Node]:
    """A plain training, the same with its pairs in two files, and one against what the first made as reference."""
    start = policy_node(model)

    def trained(**inputs: Node) -> Node:
        return Node(train.Spec(optimiser=OPTIMISER, seed=1, round=1), "round 1", {"policy": start, **inputs})

    plain = trained(pairs=ALL)
    return {
        "plain": plain,
        "two files": trained(pairs=FIRST, pairs_0=REST),
        "fixed reference": trained(pairs=ALL, reference=plain),
    }


def main(folder: Path, model: Path) -> None:
    import eva_hpc.training.trainer  # noqa: F401

    bench = Workbench(folder)
    records: dict[Node, list[Any]] = {ALL: [*PAIRS, TOO_LONG], FIRST: PAIRS[:4], REST: [*PAIRS[4:], TOO_LONG]}
    for node, some in records.items():
        bench.put(node, "pairs.jsonl", some)
    forked = multiprocessing.get_context("fork")
    for node in nodes(model).values():
        process = forked.Process(target=bench.make, args=(node,))
        process.start()
        process.join()
        if process.exitcode:
            sys.exit("a training failed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
