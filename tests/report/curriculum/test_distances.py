"""Diversity, shift and topics, on vectors where they are known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from eva_hpc.config.errors import ConfigError
from eva_hpc.report.curriculum.distances import centroid_shift, divergence_by_chance, diversity, topic_divergence, topics
from eva_hpc.report.curriculum.embeddings import WordEmbedder, open_embedder

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def vectors(*rows):
    return np.asarray(rows, dtype=np.float32)


def labels(*values):
    return np.asarray(values, dtype=np.int32)


def test_diversity_is_one_minus_the_mean_cosine_of_all_pairs():
    assert diversity(vectors(EAST, EAST, EAST)) == pytest.approx(0)
    assert diversity(vectors(EAST, NORTH)) == pytest.approx(1)
    assert diversity(vectors(EAST, EAST, NORTH)) == pytest.approx(2 / 3)
    assert diversity(vectors(EAST, [0.0, 0.0])) == pytest.approx(1), "nothing in common with what nothing is known of"
    assert diversity(vectors(EAST)) is None


def test_diversity_agrees_with_the_sum_over_pairs():
    rows = np.random.default_rng(0).normal(size=(20, 5)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    pairs = [float(rows[i] @ rows[j]) for i in range(20) for j in range(i)]
    assert diversity(rows) == pytest.approx(1 - sum(pairs) / len(pairs), abs=1e-6)


def test_the_centroid_shift_is_an_angle_between_means():
    assert centroid_shift(vectors(EAST), vectors(EAST, EAST)) == 0
    assert centroid_shift(vectors(EAST, NORTH), vectors(EAST)) == pytest.approx(1 - math.sqrt(0.5))
    assert centroid_shift(vectors(EAST), vectors([0.0, 0.0])) is None
    assert centroid_shift(vectors(EAST), np.zeros((0, 2), dtype=np.float32)) is None


def test_the_topic_divergence_is_in_bits_between_no_difference_and_nothing_in_common():
    assert topic_divergence(labels(0, 1), labels(1, 0, 0, 1)) == pytest.approx(0)
    assert topic_divergence(labels(0, 0), labels(3)) == pytest.approx(1)
    # base (1, 0), evolved (1/2, 1/2): the mixture (3/4, 1/4) has entropy 0.811 bits, the two have 0 and 1
    assert topic_divergence(labels(0), labels(0, 1)) == pytest.approx(-0.75 * math.log2(0.75) + 0.5 - 0.5)
    assert topic_divergence(labels(), labels(1)) is None


def test_small_sets_diverge_by_chance_and_the_level_is_the_same_each_time():
    few, many = (np.tile(np.arange(4, dtype=np.int32), count) for count in (3, 300))
    assert divergence_by_chance(few, few) == divergence_by_chance(few, few)
    assert 0 < divergence_by_chance(many, many) < 0.01 < divergence_by_chance(few, few)
    assert divergence_by_chance(labels(), few) is None


def test_topics_are_clusters_and_no_more_than_there_are_different_rows():
    found = topics(vectors(EAST, NORTH, EAST, NORTH), 20)
    assert found[0] == found[2] != found[1] == found[3]
    assert topics(np.zeros((0, 2), dtype=np.float32), 3).tolist() == []


def test_texts_with_the_same_words_are_close_and_each_row_has_length_one_or_zero():
    texts = ["sort a list of numbers", "sort the list", "a poem on the rain", "the rain of a poem", "xyzzy"]
    rows = WordEmbedder().embed(texts)
    assert np.linalg.norm(rows, axis=1) == pytest.approx([1, 1, 1, 1, 0], abs=1e-5)
    assert rows[0] @ rows[1] > rows[0] @ rows[2]
    assert rows[2] @ rows[3] > rows[1] @ rows[2]
    assert (rows == WordEmbedder().embed(texts)).all()


@pytest.mark.parametrize("texts", [[], ["one"], ["one", "two"], ["one", "one two"]])
def test_few_texts_can_be_embedded(texts):
    assert len(WordEmbedder().embed(texts)) == len(texts)


def test_a_named_model_needs_the_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "sentence_transformers", None)
    with pytest.raises(ConfigError, match="needs the package sentence-transformers"):
        open_embedder("org/model")
