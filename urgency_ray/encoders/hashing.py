"""The built-in text encoder: hashed character n-grams through a fixed random projection. No weights, no download."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.random_projection import SparseRandomProjection

from urgency_ray.config import TextEncoderConfig
from urgency_ray.encoders.base import TextEmbeddings, normalize_rows

NUM_HASHES = 2**18
PROJECTION_SEED = 119


class HashingEncoder:
    """Character 2- to 4-grams inside words, hashed and projected to `config.hashing_dim`.

    Korean endings and particles make words rare; their syllables are not. The projection (Achlioptas 2001; Li et al. 2006)
    keeps distances between texts within about 1 / sqrt(dim).

    Args:
        config: `hashing_dim`, `layer_norm` and `l2_normalize` apply. A text of any length is read whole; a token is an n-gram.
    """

    def __init__(self, config: TextEncoderConfig) -> None:
        self.config = config
        self.dim = config.hashing_dim
        self.vectorizer = HashingVectorizer(analyzer="char_wb", ngram_range=(2, 4), n_features=NUM_HASHES, norm="l2")
        self.count_ngrams = self.vectorizer.build_analyzer()
        projection = SparseRandomProjection(self.dim, random_state=PROJECTION_SEED).fit(sparse.csr_matrix((1, NUM_HASHES)))
        # By rows, as the product wants it: the projection's own `transform` would turn all of it round for every batch.
        self.projection = projection.components_.T.tocsr()

    def encode(self, texts: Sequence[str]) -> TextEmbeddings:
        """Embed texts: float32 (N, hashing_dim)."""
        hashed = self.vectorizer.transform(texts)
        vectors = (hashed @ self.projection).toarray().astype(np.float32)
        vectors = normalize_rows(vectors, layer_norm=self.config.layer_norm, l2=self.config.l2_normalize)
        num_tokens = np.array([len(self.count_ngrams(text)) for text in texts], np.int32)
        return TextEmbeddings(vectors, num_tokens, np.zeros(len(texts), np.int32), np.ones(len(texts), np.int32))
