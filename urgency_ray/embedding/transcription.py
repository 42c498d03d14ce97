"""The stage that writes words down: of decoded calls, those rows that are to get what a transcriber hears. It knows no Ray."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from urgency_ray.calls.transcript import clean, has_words
from urgency_ray.config import TranscriberConfig
from urgency_ray.embedding.rows import embedded_rows, put_values, reject_rows
from urgency_ray.embedding.stages import prepare_process
from urgency_ray.embedding.word_errors import count_errors
from urgency_ray.encoders.load import load_transcriber
from urgency_ray.errors import Reason
from urgency_ray.schema import TextSource


class Transcribe:
    """Ray Data stage around a Transcriber: rows whose `text_source` is it get its words for `text`.

    Where such a row had words, those of its label, the edits between the two are counted in `schema.WORD_ERROR_FIELDS`.

    Args:
        config: the transcriber.
        is_text_required: whether a row without words is a reject.
        device: torch device.
        threads: of torch, in this process.
    """

    def __init__(self, config: TranscriberConfig, is_text_required: bool, device: str, threads: int) -> None:
        prepare_process(threads)
        self.transcriber = load_transcriber(config, device)
        self.is_text_required = is_text_required

    def __call__(self, table: pa.Table) -> pa.Table:
        """Rows of `stages.DECODED_SCHEMA` in, and out."""
        sources = np.asarray(table["text_source"].to_pylist(), object)
        rows = np.array([row for row in embedded_rows(table) if sources[row] == TextSource.TRANSCRIBER], np.int64)
        if not len(rows):
            return table
        samples = table["waveform"].combine_chunks()
        heard = self.transcriber.transcribe([np.frombuffer(samples[row].as_buffer(), np.float32) for row in rows])
        texts = [clean(text or "") for text in heard]
        references = table["text"].take(pa.array(rows)).to_pylist()
        counts: list[dict[str, Any]] = [
            {} if said is None else count_errors(reference or "", text) or {}
            for reference, text, said in zip(references, texts, heard, strict=True)
        ]
        columns: dict[str, list[Any]] = {"text": texts}
        for name in ("num_letters", "num_letter_errors", "num_words", "num_word_errors"):
            columns[name] = [count.get(name) for count in counts]
        table = put_values(table, rows, columns)
        broken = np.array([said is None for said in heard])
        table = reject_rows(table, rows[broken], "the transcriber gave NaN or infinite values")
        if not self.is_text_required:
            return table
        wordless = ~broken & ~np.array([has_words(text) for text in texts])
        return reject_rows(table, rows[wordless], "the transcriber heard no words", Reason.NO_TEXT)
