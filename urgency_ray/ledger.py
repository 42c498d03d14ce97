"""Which planned calls have their rows: what an unfinished extract left behind, and the accounts of a finished one."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq
from pyarrow import fs

from urgency_ray import storage
from urgency_ray.config import ConfigError
from urgency_ray.schema import Status, read_fingerprint

log = logging.getLogger(__name__)


def refuse_other_fingerprint(run_dir: str, found: dict[str, Any] | None, wanted: dict[str, Any]) -> None:
    """Compare what made the embeddings that are there with what would make the next ones.

    Raises:
        ConfigError: they differ; the text names each difference.
    """
    differences = fingerprint_differences(found or {}, wanted)
    if differences:
        what = "; ".join(differences)
        raise ConfigError(f"--run-dir {run_dir}: already holds other embeddings ({what}); choose another run folder")


def fingerprint_differences(found: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """Lines such as `audio_encoder.name: spectral there, facebook/data2vec-audio-base here`."""
    flat_found, flat_wanted = _flatten(found), _flatten(wanted)
    return [
        f"{key}: {flat_found.get(key)} there, {flat_wanted.get(key)} here"
        for key in sorted(flat_found.keys() | flat_wanted.keys())
        if flat_found.get(key) != flat_wanted.get(key)
    ]


def _flatten(tree: dict[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= {f"{key}.{k}": v for k, v in _flatten(value).items()} if isinstance(value, dict) else {key: value}
    return flat


def recover(run_dir: str, embeddings: str, fingerprint: dict[str, Any]) -> pa.Array:
    """Make good what an interrupted extract left in `embeddings`; return the ids of the calls that have all their rows.

    A file that was being written is removed, and so are the rows of a call that lacks some (its utterances can be spread over
    two files, one of them never written). What is left is whole calls, once each.

    Ray Data has checkpoints of its own, but reading them takes an actor of a whole CPU and a GiB, which a small machine does
    not have to spare beside the encoders: the pipeline would wait for it for ever.

    Raises:
        ConfigError: the rows were made by other encoders or settings.
    """
    filesystem, path = storage.open_location(embeddings)
    tables: dict[str, pa.Table] = {}
    for info in filesystem.get_file_info(fs.FileSelector(path, recursive=True, allow_not_found=True)):
        if info.type != fs.FileType.File:
            continue
        try:
            table = pq.read_table(info.path, filesystem=filesystem, columns=["call_id", "num_call_rows"], partitioning=None)
        except (pa.ArrowInvalid, OSError):
            log.info("removing a file that was not written to its end: %s", info.base_name)
            filesystem.delete_file(info.path)
            continue
        refuse_other_fingerprint(run_dir, read_fingerprint(table.schema), fingerprint)
        tables[info.path] = table.replace_schema_metadata()
    if not tables:
        return pa.array([], pa.string())
    rows = (
        pa.concat_tables(tables.values()).group_by("call_id").aggregate([("num_call_rows", "max"), ("num_call_rows", "count")])
    )
    whole = rows.filter(pc.equal(rows["num_call_rows_max"], rows["num_call_rows_count"]))["call_id"].combine_chunks()
    for file, table in tables.items():
        kept = pc.is_in(table["call_id"], whole)
        if not pc.all(kept).as_py():
            whole_rows = pq.read_table(file, filesystem=filesystem, partitioning=None).filter(kept)
            pq.write_table(whole_rows, file, filesystem=filesystem)
    return whole


def account(embeddings: str, manifest: pa.Table) -> dict[str, Any]:
    """Count what became of each planned call, from the parquet that was written.

    A call is embedded when one of its rows is; else it is rejected, for its first row's reason.

    Raises:
        RuntimeError: a planned call has no row, a row no planned call, or a row is there twice.
    """
    columns = [
        "example_id",
        "call_id",
        "status",
        "reason",
        "duration_sec",
        "num_windows",
        "num_tokens_dropped",
        "num_text_windows",
    ]
    filesystem, path = storage.open_location(embeddings)
    rows = pads.dataset(path, filesystem=filesystem, partitioning="hive", format="parquet").to_table(columns=columns)
    frame = rows.to_pandas()
    if frame["example_id"].duplicated().any():
        raise RuntimeError(f"accounting: {int(frame['example_id'].duplicated().sum())} rows were written twice in {embeddings}")
    planned, found = set(manifest["call_id"].to_pylist()), set(frame["call_id"])
    if planned != found:
        raise RuntimeError(f"accounting: {len(planned - found)} planned calls have no row, {len(found - planned)} rows no plan")
    return count_rows(frame)


def count_rows(rows: pd.DataFrame) -> dict[str, Any]:
    """What extract.json counts, of all rows of a run; see `account` for what a call counts as."""
    embedded, rejected = (rows[rows["status"] == status] for status in (Status.EMBEDDED, Status.REJECTED))
    lost = rejected[~rejected["call_id"].isin(embedded["call_id"])].sort_values("example_id").drop_duplicates("call_id")
    return {
        "calls_read": rows["call_id"].nunique(),
        "calls_embedded": embedded["call_id"].nunique(),
        "calls_rejected": len(lost),
        "rejected_by_reason": dict(Counter(lost["reason"]).most_common()),
        "rows_embedded": len(embedded),
        "rows_rejected": len(rejected),
        "rows_rejected_by_reason": dict(Counter(rejected["reason"]).most_common()),
        "audio_sec": round(float(embedded["duration_sec"].sum()), 3),
        "rows_windowed": int((embedded["num_windows"] > 1).sum()),
        "texts_windowed": int((embedded["num_text_windows"] > 1).sum()),
        "texts_truncated": int((embedded["num_tokens_dropped"] > 0).sum()),
        "tokens_dropped": int(embedded["num_tokens_dropped"].sum()),
    }


def accounting_line(summary: dict[str, Any]) -> str:
    """`1000 calls read = 984 embedded + 16 rejected (2 no_text, ...)`, of an extract.json.

    Raises:
        RuntimeError: the counts do not add up.
    """
    read, embedded, rejected = (summary[f"calls_{what}"] for what in ("read", "embedded", "rejected"))
    if read != embedded + rejected:
        raise RuntimeError(f"accounting: {read} calls read, but {embedded} embedded and {rejected} rejected")
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary["rejected_by_reason"].items())
    return f"{read} calls read = {embedded} embedded + {rejected} rejected" + (f" ({reasons})" if reasons else "")
