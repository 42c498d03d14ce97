"""extract.json as types: what became of each call that was read, and what made its embeddings.

Both sides of the schema know it: extract and import write it, training and the report read it.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict

from urgency_ray.errors import WorkError
from urgency_ray.fingerprint import Fingerprint
from urgency_ray.run_folder import RunFolder, read_json

SUFFIXES_SHOWN = 8


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
        rows_transcribed: rows whose words a transcriber wrote down, rejects among them.
        calls_compared: calls that were transcribed though their labels have words.
        character_error_rate, word_error_rate: of all of these together, edits for each letter and for each word of the labels;
            None where there are none. See `embedding.word_errors`.
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
    rows_transcribed: int = 0
    calls_compared: int = 0
    character_error_rate: float | None = None
    word_error_rate: float | None = None

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

    def transcript_line(self) -> str | None:
        """`150 rows transcribed; against the labels of 120 calls, CER 8.1 % and WER 21.0 %`; None where none were."""
        if not self.rows_transcribed:
            return None
        line = f"{self.rows_transcribed} rows transcribed"
        if self.character_error_rate is None or self.word_error_rate is None:
            return line
        letters, words = (f"{100 * rate:.1f} %" for rate in (self.character_error_rate, self.word_error_rate))
        return f"{line}; against the labels of {self.calls_compared} calls, CER {letters} and WER {words}"


class FilesSeen(BaseModel):
    """What lies below data.root, hidden files apart: members of archives are files as well.

    Attributes:
        seen: all of them.
        read: WAVs, labels, and archives whose directory was read.
        not_read: the others by their suffix, the most frequent first; `hidden` are hidden files, and folders, of any.
        calls_by_split: calls that have the files that they need, by the provider's split.
        copies: rejects that are copies of a call that is read, or further files of one.
        near_misses: WAVs without labels whose label is there under a name that differs a little, by how it differs.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    seen: int
    read: int
    not_read: dict[str, int]
    calls_by_split: dict[str, int]
    copies: int
    near_misses: dict[str, int]

    def not_read_words(self) -> str:
        """`3 .csv, 1 .txt`; rare suffixes of many are counted together."""
        counts = list(self.not_read.items())
        shown = [f"{count} {suffix}" for suffix, count in counts[:SUFFIXES_SHOWN]]
        rest = sum(count for _, count in counts[SUFFIXES_SHOWN:])
        return ", ".join([*shown, f"{rest} of other suffixes"] if rest else shown)

    def lines(self) -> list[str]:
        """What extract prints of them: one line each for files, splits and, where there are some, near misses.

        Raises:
            RuntimeError: the counts do not add up.
        """
        not_read = sum(self.not_read.values())
        if self.seen != self.read + not_read:
            raise RuntimeError(f"accounting: {self.seen} files seen, but {self.read} read and {not_read} not read")
        words = self.not_read_words()
        lines = [f"{self.seen} files seen = {self.read} read + {not_read} not read" + (f" ({words})" if words else "")]
        if self.calls_by_split:
            splits = ", ".join(f"{count} {split}" for split, count in self.calls_by_split.items())
            lines.append(f"calls that can be read, by the provider's split: {splits}")
        if self.copies:
            lines.append(f"copies of these calls, set aside as duplicate_stem: {self.copies}; nothing is lost with them")
        if self.near_misses:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self.near_misses.items())
            lines.append(
                f"hint: {sum(self.near_misses.values())} WAVs have no label but for a small difference in its name ({kinds}); "
                "their rows name it: rename one of the two"
            )
        return lines


class ExtractAccounts(ExtractCounts):
    """extract.json. Keys that are not known here are passed over: a newer version may write more.

    Attributes:
        wall_sec: of the run that finished it, in seconds.
        fingerprint: what made the embeddings.
        manifest_sha256: identifies the calls that were planned, or the rows that were imported.
        files: what lay below data.root; None of an import, or of calls that a manifest lists.
    """

    wall_sec: float
    fingerprint: Fingerprint
    manifest_sha256: str
    files: FilesSeen | None = None

    @classmethod
    def of(
        cls,
        counts: ExtractCounts,
        *,
        wall_sec: float,
        fingerprint: Fingerprint,
        manifest_sha256: str,
        files: FilesSeen | None = None,
    ) -> Self:
        """Those of a run that is about to end."""
        made = counts.model_dump()
        return cls(**made, wall_sec=wall_sec, fingerprint=fingerprint, manifest_sha256=manifest_sha256, files=files)

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

    def refuse_empty(self, run_dir: str) -> Self:
        """Those of a run that embedded something.

        Raises:
            WorkError: every call was rejected.
        """
        if not self.calls_embedded:
            words = f"not one call could be embedded: {self.line()}"
            raise WorkError(f"{run_dir}: {words}; its embeddings say of each call what is wrong")
        return self
