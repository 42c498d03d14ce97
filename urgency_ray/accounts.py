"""extract.json as types: what became of each call that was read, and what made its embeddings.

Both sides of the schema know it: extract and import write it, training and the report read it.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from urgency_ray.fingerprint import Fingerprint
from urgency_ray.run_folder import RunFolder, read_json


class ExtractCounts(BaseModel):
    """What is counted of all rows of a run.

    A call is embedded when one of its rows is; else it is rejected, for its first row's reason.

    Attributes:
        rejected_by_reason: calls, the most frequent reason first.
        rows_embedded, rows_rejected, rows_rejected_by_reason: the same of rows, which are utterances where a call has several.
        rows_noted: embedded rows whose `detail` says that recording or label are not as they should be.
        audio_sec: embedded audio, in seconds.
        rows_windowed: recordings that were longer than the audio encoder's window.
        texts_windowed, texts_truncated: texts that were longer than the text encoder reads: read in parts, or cut.
        tokens_dropped: tokens that were cut off.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    calls_read: int
    calls_embedded: int
    calls_rejected: int
    rejected_by_reason: dict[str, int]
    rows_embedded: int
    rows_rejected: int
    rows_rejected_by_reason: dict[str, int]
    audio_sec: float
    rows_windowed: int
    texts_windowed: int
    texts_truncated: int
    tokens_dropped: int
    rows_noted: int = 0

    def line(self) -> str:
        """`1000 calls read = 984 embedded + 16 rejected (2 no_text, ...)`.

        Raises:
            RuntimeError: the counts do not add up.
        """
        read, embedded, rejected = self.calls_read, self.calls_embedded, self.calls_rejected
        if read != embedded + rejected:
            raise RuntimeError(f"accounting: {read} calls read, but {embedded} embedded and {rejected} rejected")
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.rejected_by_reason.items())
        return f"{read} calls read = {embedded} embedded + {rejected} rejected" + (f" ({reasons})" if reasons else "")


class ExtractAccounts(ExtractCounts):
    """extract.json. Keys that are not known here are passed over: a newer version may write more.

    Attributes:
        wall_sec: of the run that finished it, in seconds.
        fingerprint: what made the embeddings.
        manifest_sha256: identifies the calls that were planned, or the rows that were imported.
    """

    wall_sec: float
    fingerprint: Fingerprint
    manifest_sha256: str

    @classmethod
    def of(cls, counts: ExtractCounts, *, wall_sec: float, fingerprint: Fingerprint, manifest_sha256: str) -> Self:
        """Those of a run that is about to end."""
        return cls(**counts.model_dump(), wall_sec=wall_sec, fingerprint=fingerprint, manifest_sha256=manifest_sha256)

    @classmethod
    def read(cls, run_dir: str) -> Self:
        """Those of a run folder that extract, or import, has finished.

        Raises:
            RequestError: the file is missing, damaged or another version's.
        """
        # Extract keeps the rows that are whole, and counts them again.
        return read_json(RunFolder(run_dir).extract, cls, "remove it and run extract again")

    def counts(self) -> ExtractCounts:
        """What is counted of the rows alone."""
        return ExtractCounts(**self.model_dump(include=set(ExtractCounts.model_fields)))
