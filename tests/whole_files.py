"""Whether the files of a run folder are whole, whatever happened to the command that wrote them."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from safetensors.torch import load_file

NOT_WHOLE_YET = ".partial"
"""In the names of files that nothing reads: a kill can leave them."""


def read_everything(run_dir: Path) -> list[str]:
    """Read each file of a run folder to its end; returns their names.

    Left out are what nothing reads: parts of files, Ray Train's own storage, and embeddings before their extract has ended,
    which the next extract looks at one by one.
    """
    unread = ["checkpoints/", "tune/ray/", "tensorboard/"] + (
        ["embeddings/"] if not (run_dir / "extract.json").exists() else []
    )
    names = sorted(str(path.relative_to(run_dir)) for path in run_dir.rglob("*") if path.is_file())
    names = [name for name in names if not name.startswith(tuple(unread)) and NOT_WHOLE_YET not in name]
    for name in names:
        path = run_dir / name
        if path.suffix == ".parquet":
            pq.read_table(path)
        elif path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".yaml":
            assert yaml.safe_load(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            assert load_file(path)
        elif path.suffix == ".html":
            assert path.read_text(encoding="utf-8").rstrip().endswith("</html>")
    return names
