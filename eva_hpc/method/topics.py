"""What prompts are about, roughly: clusters of their words, over which a sample is balanced.

{"a": "Sort a list", "b": "Sort a list of dicts", "c": "Write a poem on rain"}, 2 topics   ->   {"a": 0, "b": 0, "c": 1}
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from eva_hpc.store.seeds import derive_seed

MAX_WORDS = 20_000


def topics_of(prompts: Mapping[str, str], count: int, seed: int) -> dict[str, int]:
    """Prompt id -> topic in [0, count), for the texts of prompts by id; the numbers mean nothing.

    k-means (scikit-learn) of the words that a text has, weighted by inverse document frequency, without English function
    words and over the `MAX_WORDS` most frequent ones. The topics depend on the seed and the set of texts alone: texts with the
    same words share a topic, and so do all texts without any. With fewer different texts than topics, each has its own.

    Raises:
        ValueError: the count is below 1.
    """
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, TfidfVectorizer
    from threadpoolctl import threadpool_limits

    if count < 1:
        raise ValueError(f"the number of topics is {count}: it must be at least 1")

    def words(text: str) -> str:
        return " ".join(sorted(set(re.findall(r"\w+", text.casefold())) - ENGLISH_STOP_WORDS))

    words_of = {prompt_id: words(text) for prompt_id, text in prompts.items()}
    different = sorted(set(words_of.values()))
    if not any(different):
        return dict.fromkeys(prompts, 0)
    vectors = TfidfVectorizer(analyzer=str.split, max_features=MAX_WORDS).fit_transform(different)
    kmeans = KMeans(min(count, len(different)), n_init=4, random_state=derive_seed(seed, "topics"))
    with threadpool_limits(limits=1):  # several threads add the same numbers in an order that changes
        labels = kmeans.fit_predict(vectors)
    topic = dict(zip(different, labels.tolist(), strict=True))
    return {prompt_id: topic[text] for prompt_id, text in words_of.items()}
