"""Which rows belong together, and so into one split: apart from `splits`, because workers need this without scikit-learn."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from urgency_ray.numbering import UNKNOWN, number_values


def group_examples(keys: pd.DataFrame) -> NDArray[np.int64]:
    """Group number of each row (N,): rows of one call, calls with the same audio, or of one `group`, are one, transitively.

    `group` is a column of `keys` where `split.group_by` asks for it (`load_examples`).
    """
    calls = number_values(keys["call_id"])
    num_nodes = num_calls = int(calls.max()) + 1
    pairs = [np.empty((2, 0), np.int64)]
    for column in ("audio_sha256", "group"):
        if column in keys:
            codes = number_values(keys[column])
            # What one row alone has joins nothing: of millions of rows nearly all.
            is_shared = np.bincount(codes[codes >= 0], minlength=1)[codes] > 1
            shared = np.flatnonzero(is_shared & (codes >= 0))
            pairs.append(np.stack([calls[shared], num_nodes + codes[shared]]))
            num_nodes += int(codes.max(initial=UNKNOWN)) + 1
    ends = np.concatenate(pairs, axis=1)
    # Nodes without an edge at the end are numbers that nothing has.
    num_nodes = max(num_calls, int(ends.max(initial=0)) + 1)
    edges = coo_array((np.ones(ends.shape[1], np.int8), (ends[0], ends[1])), shape=(num_nodes, num_nodes))
    _, component = connected_components(edges, directed=False)
    return np.asarray(component[calls], np.int64)
