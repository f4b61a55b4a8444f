"""Prompts as vectors, by a sentence-embedding model or by their words. Either way rows have length 1, or are 0.

The model knows paraphrases and needs its weights; the words need nothing. Distances by one do not compare with those by the
other, so every file names which it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from eva_hpc.config.errors import ConfigError
from eva_hpc.store.seeds import derive_seed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Vectors = NDArray[np.float32]

DIMENSIONS = 100
"""Of the vectors by words: the usual choice for latent semantic analysis of short texts."""


class Embedder(Protocol):
    """Turns texts into vectors; `name` says how, in words for a reader of the files."""

    name: str

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text. Vectors of different calls need not be comparable."""
        ...


class WordEmbedder:
    """TF-IDF weights of words, reduced by truncated SVD, both fitted on the texts that are embedded."""

    name = f"TF-IDF and truncated SVD to at most {DIMENSIONS} dimensions, fitted on the prompts of the run"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text. A text of which no word occurs in another one is 0: nothing is known of it."""
        import numpy as np
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize
        from threadpoolctl import threadpool_limits

        if not texts:
            return np.zeros((0, 1), dtype=np.float32)
        try:
            counter = TfidfVectorizer(token_pattern=r"(?u)\w+", sublinear_tf=True, min_df=2, dtype=np.float32)
            weights = counter.fit_transform(texts)
        except ValueError:  # no two texts share a word
            return np.zeros((len(texts), 1), dtype=np.float32)
        dimensions = min(DIMENSIONS, weights.shape[1] - 1)
        if dimensions < 1:  # one word is a single dimension already
            return np.asarray(normalize(weights).toarray(), dtype=np.float32)
        svd = TruncatedSVD(dimensions, random_state=derive_seed("curriculum embedding"))
        with threadpool_limits(limits=1):  # several threads add the same numbers in an order that changes
            reduced = svd.fit_transform(weights)
        # What the SVD drops leaves a text rounding noise, of which length 1 must not be made.
        reduced[np.linalg.norm(reduced, axis=1) < 1e-5] = 0.0
        return np.asarray(normalize(reduced), dtype=np.float32)


class ModelEmbedder:
    """A model of the sentence-transformers library, by local folder or hub name. Every text is embedded once.

    Raises:
        ConfigError: the library is not installed, or it cannot load the model.
    """

    def __init__(self, model: str) -> None:
        try:
            import sentence_transformers
        except ImportError:
            raise ConfigError(
                f"--embedder: found {model}; needs the package sentence-transformers, which is not installed; "
                "without --embedder prompts are compared by their words"
            ) from None
        try:
            self._model: Any = sentence_transformers.SentenceTransformer(model)
        except (OSError, ValueError) as error:
            why = str(error).splitlines()[0]
            raise ConfigError(f"--embedder: found {model}; sentence-transformers cannot load it: {why}") from None
        self.name = f"{model} by sentence-transformers {sentence_transformers.__version__}"
        self._known: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """One row for each text; texts beyond the model's length are cut by it."""
        import numpy as np

        new = list(dict.fromkeys(text for text in texts if text not in self._known))
        if new:
            rows = self._model.encode(new, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False)
            self._known.update(zip(new, rows, strict=True))
        return np.stack([self._known[text] for text in texts]) if texts else np.zeros((0, 1), dtype=np.float32)


def open_embedder(model: str | None) -> Embedder:
    """The embedder of a model, or by words if none is named.

    Raises:
        ConfigError: as :class:`ModelEmbedder`.
    """
    return ModelEmbedder(model) if model else WordEmbedder()
