"""Which rows belong together, and so into one split: apart from `splits`, because workers need this without scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


def group_examples(keys: pd.DataFrame) -> NDArray[np.int64]:
    """Group number of each row (N,): rows of one call, calls with the same audio, or of one `group`, are one, transitively.

    `group` is a column of `keys` where `split.group_by` asks for it (`load_examples`).
    """
    calls, _ = pd.factorize(keys["call_id"])
    num_nodes = calls.max() + 1
    pairs = []
    for column in ("audio_sha256", "group"):
        if column in keys:
            codes, values = pd.factorize(keys[column])
            known = codes >= 0
            pairs.append((calls[known], num_nodes + codes[known]))
            num_nodes += len(values)
    ends = np.concatenate(pairs, axis=1)
    edges = coo_array((np.ones(ends.shape[1], np.int8), (ends[0], ends[1])), shape=(num_nodes, num_nodes))
    _, component = connected_components(edges, directed=False)
    return np.asarray(component[calls], np.int64)
