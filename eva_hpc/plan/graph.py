"""The nodes of the stage graph: a spec and the nodes it reads, named by an identity that follows from both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from eva_hpc.stages.contract import StageSpec
from eva_hpc.store.keys import Identity, identify


@dataclass(frozen=True, eq=False)
class Node:
    """One stage to be done. Two nodes of the same identity are the same work.

    `part` says to a reader which part of the run it belongs to: "start", "warm-up", "round 1", …, "evaluation". A `salt` makes
    it, and all that reads it, another work than the same without.
    """

    spec: StageSpec
    part: str
    inputs: Mapping[str, Node] = field(default_factory=dict)
    salt: str = ""

    @cached_property
    def identity(self) -> Identity:
        """Hash of the spec and of the identities of the inputs."""
        return identify(
            self.spec.stage,
            self.spec.version,
            self.spec.parameters(),
            {role: node.identity for role, node in self.inputs.items()},
            self.spec.nested,
            self.salt,
        )


def in_order(roots: Iterable[Node]) -> list[Node]:
    """All nodes the roots need, themselves included, each identity once and after its inputs."""
    seen: set[Identity] = set()
    ordered: list[Node] = []

    def visit(node: Node) -> None:
        if node.identity not in seen:
            seen.add(node.identity)
            for source in node.inputs.values():
                visit(source)
            ordered.append(node)

    for root in roots:
        visit(root)
    return ordered
