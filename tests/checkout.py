"""A copy of the checkout, also with what may lie in one and has no business elsewhere."""

import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]
MAX_SHIPPED_MIB = 100
"""What Ray takes as a working dir."""
RUNTIME_ENV = ("--runtime-env", "configs/cluster/runtime_env.yaml")
"""What `ray job submit` is given in a checkout."""
HEAVY = (".venv/lib/torch.so", "runs/sense/embeddings/0.parquet", "data/119/TS_서울.zip", ".git/objects/pack", "dist/a.whl")

LEFT = re.compile(r"^(?:\.(?:git|venv|hypothesis|coverage|\w+_cache)|runs|data|[\w.]+\.egg-info|build|dist)(?:/|$)|__pycache__")
"""What git does not keep."""


def tracked() -> list[str]:
    """The files of the checkout, those that are not committed yet among them."""
    command = ["git", "-c", "core.quotePath=false", "ls-files", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    # Without a repository, in an archive of one, what is there was committed but for what making and testing it leaves.
    names = found.stdout.splitlines() if found.returncode == 0 else [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    return [name for name in names if (ROOT / name).is_file() and not LEFT.search(name)]


def copy_checkout(folder: Path) -> Path:
    """Copy `tracked` files, and lay those of HEAVY beside them, each too large to be shipped; they take no disk."""
    for name in tracked():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for name in HEAVY:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
        os.truncate(folder / name, (MAX_SHIPPED_MIB + 1) << 20)
    return folder
