"""How the published systems lay out their artefacts: UrgencySense's pair of files, and UrgencyDetect's."""

from __future__ import annotations

from dataclasses import dataclass

from urgency_ray import schema, storage
from urgency_ray.errors import RequestError
from urgency_ray.schema import URGENCY_LABELS

FIELDS = (*schema.ROW_FIELDS, *schema.COUNT_FIELDS)


@dataclass(frozen=True)
class Layout:
    """How one of the systems lays out its pair of files.

    Attributes:
        pair: the published names of the two files.
        arrays: what the array file holds; without `text`, an import embeds the transcripts.
        columns: its names for fields of a run's rows; the other fields go by their own.
        required: columns without which nothing is read.
        levels: what stands for each class in its urgency column, in the order of the classes.
    """

    pair: str
    arrays: tuple[str, ...]
    columns: dict[str, str]
    required: tuple[str, ...]
    levels: tuple[str, ...]

    def column(self, field: str) -> str:
        """The CSV column of a field."""
        return self.columns.get(field, field)


SENSE = Layout(
    pair="UrgencySense's metadata.csv and embeddings.npz",
    arrays=("audio", "text"),
    columns={"example_id": "file_id", "urgency": "urgency_y"},
    required=("file_id", "text", "urgency_y"),
    levels=("0", "1", "2"),
)


DETECT = Layout(
    pair="UrgencyDetect's processed_data.csv and wav2vec2_embeddings.npy",
    arrays=("audio",),
    # Not urgency_label: the order of its integers is that in which the labels happened to appear.
    columns={
        "call_id": "_id",
        "start_ms": "startAt",
        "end_ms": "endAt",
        "urgency": "urgencyLevel",
        "disaster_medium": "disasterMedium",
    },
    required=("_id", "utterance_id", "text", "startAt", "endAt", "sentiment", "urgencyLevel"),
    levels=URGENCY_LABELS,
)


def choose_layout(embeddings: str) -> Layout:
    suffix = storage.suffix(embeddings)
    if suffix not in (".npz", ".npy"):
        raise RequestError(f"--embeddings {embeddings}: must end in .npz ({SENSE.pair}) or .npy ({DETECT.pair})")
    return SENSE if suffix == ".npz" else DETECT
