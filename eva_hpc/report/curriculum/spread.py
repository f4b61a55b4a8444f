"""How varied each set of a run is, and how far it lies from the base prompts: what takes more than one prompt to see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eva_hpc.report.curriculum.collect import PromptSet
from eva_hpc.report.curriculum.distances import centroid_shift, divergence_by_chance, diversity, topic_divergence, topics
from eva_hpc.report.curriculum.embeddings import Embedder
from eva_hpc.report.curriculum.texts import distinct, n_grams, words
from eva_hpc.store.seeds import derive_seed

if TYPE_CHECKING:
    from eva_hpc.report.curriculum.distances import Labels


@dataclass(frozen=True)
class Spread:
    """The topic of each prompt of a set, and the measures of the set as a whole."""

    labels: Labels
    measures: dict[str, float | None]


def spreads(sets: Sequence[PromptSet], embedder: Embedder, topic_count: int) -> list[Spread]:
    """Of all sets of a run, in their order. They share one space and one set of topics, so that its rounds compare."""
    if not sets:
        return []
    texts = sorted({prompt["prompt"] for one in sets for prompt in one.prompts})  # so that their order is nobody's choice
    place = {text: index for index, text in enumerate(texts)}
    all_vectors = embedder.embed(texts)
    all_labels = topics(all_vectors, topic_count)
    chosen = [[place[prompt["prompt"]] for prompt in one.prompts] for one in sets]
    vectors = [all_vectors[rows] for rows in chosen]
    labels = [all_labels[rows] for rows in chosen]
    base = {one.part.name: index for index, one in enumerate(sets) if one.role == "base"}
    start = next(iter(base.values()), None)
    varied = _distinct(sets)
    found = []
    for index, one in enumerate(sets):
        against = base.get(one.part.name) if one.role == "evolved" else None
        of_base = None if against is None else (labels[against], labels[index])
        measures = {
            "diversity": diversity(vectors[index]),
            **varied[index],
            "centroid_shift": None if against is None else centroid_shift(vectors[against], vectors[index]),
            "topic_divergence": None if of_base is None else topic_divergence(*of_base),
            "topic_divergence_by_chance": None if of_base is None else divergence_by_chance(*of_base),
            "centroid_shift_from_start": None if start is None else centroid_shift(vectors[start], vectors[index]),
            "topic_divergence_from_start": None if start is None else topic_divergence(labels[start], labels[index]),
        }
        found.append(Spread(labels[index], measures))
    return found


def _distinct(sets: Sequence[PromptSet]) -> list[dict[str, float | None]]:
    """Distinct-1 and -2 of each set, all cut to the n-grams of the smallest, in an order by seed and id."""
    texts = []
    for one in sets:
        shuffled = sorted(one.prompts, key=lambda prompt: (derive_seed("curriculum distinct", prompt["id"]), prompt["id"]))
        texts.append([words(prompt["prompt"]) for prompt in shuffled])
    limits = {n: min(sum(1 for _ in n_grams(one, n)) for one in texts) for n in (1, 2)}
    return [{f"distinct_{n}": distinct(one, n, limit) for n, limit in limits.items()} for one in texts]
