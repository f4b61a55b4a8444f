"""Diversity of a set of vectors, and how far one set lies from another: by their centres and by their topics.

Vectors have length 1, or are 0 where nothing is known of the text (see `embeddings.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eva_hpc.store.seeds import derive_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]
    Labels = NDArray[np.int32]

_DRAWS = 200


def diversity(vectors: Vectors) -> float | None:
    """1 - mean cosine similarity over all pairs of different rows; None for fewer than two rows.

    0 is a set of copies, 1 a set of unrelated texts. A vector of 0 is unrelated to every other one. Takes time linear in the
    number of rows: the sum over pairs is that of the squared length of the sum of all rows.
    """
    import numpy as np

    count = len(vectors)
    if count < 2:
        return None
    rows = vectors.astype(np.float64)
    of_all_pairs = float(np.square(rows.sum(axis=0)).sum() - np.square(rows).sum())
    return 1.0 - of_all_pairs / (count * (count - 1))


def centroid_shift(base: Vectors, other: Vectors) -> float | None:
    """1 - cosine between the mean vectors of two sets: 0 the same direction, 1 unrelated; None where one set has none.

    Small where both sets are broad, whatever happened inside them: see `topic_divergence` too.
    """
    import numpy as np

    if not len(base) or not len(other):
        return None
    first, second = base.mean(axis=0, dtype=np.float64), other.mean(axis=0, dtype=np.float64)
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    if lengths == 0:
        return None
    return round(max(0.0, 1.0 - float(first @ second) / lengths), 12)  # so that a set does not differ from itself by rounding


def topics(vectors: Vectors, count: int) -> Labels:
    """The topic of each row, from 0: k-means with `count` clusters, or as many as there are different rows.

    Topics have no names and no order; their number is a choice, and divergences by different numbers do not compare.
    """
    import numpy as np
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if not len(vectors):
        return np.zeros(0, dtype=np.int32)
    clusters = min(count, len(np.unique(vectors, axis=0)))
    kmeans = KMeans(clusters, n_init=4, random_state=derive_seed("curriculum topics"))
    with threadpool_limits(limits=1):  # several threads add the same numbers in an order that changes
        return np.asarray(kmeans.fit_predict(vectors), dtype=np.int32)


def topic_divergence(base: Labels, other: Labels) -> float | None:
    """Jensen-Shannon divergence in bits between the shares of topics in two sets; None where one is empty.

    0 is the same shares, 1 no topic in common. Sets of few prompts differ by chance: see `divergence_by_chance`.
    """
    import numpy as np

    if not len(base) or not len(other):
        return None
    size = int(max(base.max(), other.max())) + 1
    return float(_divergence(np.bincount(base, minlength=size), np.bincount(other, minlength=size)))


def divergence_by_chance(base: Labels, other: Labels) -> float | None:
    """What `topic_divergence` would be on average if the same prompts were dealt to the two sets at random.

    The mean of 200 seeded deals into sets of the same sizes; a divergence near it shows no shift.
    """
    import numpy as np

    if not len(base) or not len(other):
        return None
    counts = np.bincount(np.concatenate([base, other]))
    generator = np.random.default_rng(derive_seed("curriculum chance"))
    dealt = generator.multivariate_hypergeometric(counts, len(base), size=_DRAWS)
    return float(_divergence(dealt, counts - dealt).mean())


def _divergence(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of counts along the last axis. SciPy gives the distance, the root of the divergence."""
    import numpy as np
    from scipy.spatial.distance import jensenshannon

    return np.asarray(np.square(jensenshannon(first, second, base=2, axis=-1)), dtype=np.float64)
