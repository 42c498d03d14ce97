"""A run folder of imported embeddings, in a second: what trainings on clusters and stores begin with."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from urgency_ray.commands.interchange import import_artefacts
from urgency_ray.config import Config


def make_run(run_dir: Path | str, num_calls: int = 4000) -> Any:
    """Import so many calls, whose urgency their embeddings tell, into a run folder, and return that."""
    rng = np.random.default_rng(0)
    urgency = rng.integers(0, 3, num_calls)
    frame = pd.DataFrame({"file_id": [f"call{row}" for row in range(num_calls)], "text": "불이야", "urgency_y": urgency})
    arrays: dict[str, Any] = {
        name: (rng.standard_normal((3, 8))[urgency] + 4 * rng.standard_normal((num_calls, 8))).astype(np.float32)
        for name in ("audio", "text")
    }
    with TemporaryDirectory() as folder:
        frame.to_csv(f"{folder}/metadata.csv", index=False)
        np.savez(f"{folder}/embeddings.npz", **arrays)
        import_artefacts(Config(), f"{folder}/metadata.csv", f"{folder}/embeddings.npz", str(run_dir))
    return run_dir
