"""A saved model by its place: one classifier, or an ensemble of them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from packaging.version import Version
from pydantic import BaseModel, ValidationError

from urgency_ray import __version__, storage
from urgency_ray.config import ModelConfig
from urgency_ray.errors import RequestError, first_fault, first_line
from urgency_ray.model.classifier import UrgencyClassifier
from urgency_ray.model.ensemble import EnsembleConfig, UrgencyEnsemble
from urgency_ray.model.weights import WEIGHTS_FILE
from urgency_ray.versions import is_newer

CONFIG_FILE = "config.json"

Model = UrgencyClassifier | UrgencyEnsemble


def load_model(location: str) -> Model:
    """A model saved by `train` or `tune`, from a folder or URI.

    Raises:
        RequestError: there is no model, one of its files is damaged or missing, or a newer version made it.
    """
    for name in (WEIGHTS_FILE, CONFIG_FILE):
        if not storage.exists(storage.join(location, name)):
            raise RequestError(f"--model {location}: holds no {name}; give the model folder of a trained run, whole")
    with tempfile.TemporaryDirectory() as folder:
        storage.copy_dir(location, folder)
        try:
            kind = _read_kind(Path(folder, CONFIG_FILE).read_bytes())
            model: Model = kind.from_pretrained(folder)
        except RequestError as error:
            raise RequestError(f"--model {location}: {error}") from error
        except Exception as error:
            # Whatever it is, it is in the files of this folder.
            raise RequestError(f"--model {location}: cannot be loaded: {first_line(error)}; take another copy of it") from error
    return model.eval()


def _read_kind(content: bytes) -> type[Model]:
    """Which class a config.json is of; refuses one that is damaged, of something else, or of a newer version.

    Raises:
        RequestError: as said; the text names the file and the field.
    """
    try:
        saved: dict[str, Any] = json.loads(content)
        name = "ensemble" if "ensemble" in saved else "model"
        section, version = saved[name], Version(saved.get("urgency_ray_version", "0.2.0"))
        if not isinstance(saved.get("transform") or {}, dict):
            raise TypeError("transform must be a mapping")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RequestError(f"{CONFIG_FILE}: is not that of a model of urgency_ray ({first_line(error)})") from None
    kinds: dict[str, tuple[type[Model], type[BaseModel]]] = {
        "model": (UrgencyClassifier, ModelConfig),
        "ensemble": (UrgencyEnsemble, EnsembleConfig),
    }
    kind, schema = kinds[name]
    try:
        schema.model_validate(section)
    except ValidationError as error:
        made = f"the model was made by urgency_ray {version}, this is {__version__}"
        advice = f"{made}: update" if version > Version(__version__) else "take another copy of it"
        raise RequestError(f"{CONFIG_FILE}: {first_fault(error, name)}; {advice}") from None
    if is_newer(version):
        raise RequestError(f"{CONFIG_FILE}: the model was made by urgency_ray {version}, this is {__version__}: update")
    return kind
