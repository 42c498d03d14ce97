"""`urgency-ray extract`: all calls of a folder or a manifest into a run folder's embeddings, every call accounted for."""

from __future__ import annotations

import hashlib
import json
import logging
import time

import pyarrow as pa
import pyarrow.compute as pc

from urgency_ray import cluster, lease, storage
from urgency_ray.accounts import ExtractAccounts
from urgency_ray.calls.plan import files_seen, plan_calls
from urgency_ray.calls.sample import sample_transcripts
from urgency_ray.config import Config
from urgency_ray.embedding import ledger
from urgency_ray.embedding.pipeline import PROGRESS_SEC, Progress, embed_calls
from urgency_ray.embedding.transform import make_fingerprint, open_arithmetic, pin_arithmetic, pin_revisions
from urgency_ray.encoders.load import is_built_in
from urgency_ray.encoders.probe import check_vocabulary, probe_encoders
from urgency_ray.errors import RequestError, WorkError
from urgency_ray.fingerprint import Fingerprint, refuse_other
from urgency_ray.run_folder import RunFolder, write_json

log = logging.getLogger(__name__)

ROWS_PER_DIGEST = 8192
SAMPLE_CALLS = 20


def extract(config: Config, run_dir: str) -> ExtractAccounts:
    """Embed every call of `config.data` into `<run_dir>/embeddings`; write `extract.json` and return it.

    A finished run folder of the same calls, encoders and settings is left as it is; in an unfinished one, calls that have their
    rows are not done again.

    Raises:
        RequestError: no calls there, an encoder cannot be loaded, or the run folder holds something else or is among the calls.
        UnreachableError: a file of a call cannot be reached; what is done is kept.
        WorkError: every call was rejected.
    """
    started = time.monotonic()
    if config.data.root is not None and _is_below(run_dir, config.data.root):
        raise RequestError(
            f"--run-dir {run_dir}: lies below data.root, where its files would be taken for calls; choose another"
        )
    folder, embeddings = RunFolder(run_dir), RunFolder(run_dir).embeddings
    config = pin_revisions(config)
    is_finished = storage.exists(folder.extract)
    if not is_finished:
        probe_encoders(config)
    if open_arithmetic(config):
        cluster.connect(config.ray)
        config = pin_arithmetic(config, cluster.num_gpus())
    fingerprint = make_fingerprint(config)
    manifest = plan_calls(config.data)
    listed = config.data.manifest
    for line in files_seen(manifest).lines() if listed is None else [f"{len(manifest)} rows of {listed}, each a call"]:
        log.info(line)
    planned = _digest(manifest)
    if is_finished:
        accounts = ExtractAccounts.read(run_dir)
        refuse_other(run_dir, accounts.fingerprint, fingerprint)
        if accounts.manifest_sha256 != planned:
            raise RequestError(f"--run-dir {run_dir}: holds the embeddings of other calls; choose another run folder")
        if _is_whole(embeddings, manifest, accounts):
            log.info("%s holds the embeddings of these calls already: nothing to do", run_dir)
            return _refuse_empty(run_dir, accounts)
        log.warning("warning: %s lacks files that it once had: their calls are done again", embeddings)
    if not is_built_in(config.text_encoder):
        check_vocabulary(config.text_encoder, sample_transcripts(manifest, config.data, SAMPLE_CALLS))
    with lease.hold(folder.lease("extract"), f"extract into {run_dir}"):
        return _embed(config, run_dir, manifest, fingerprint, planned=planned, started=started)


def _embed(
    config: Config, run_dir: str, manifest: pa.Table, fingerprint: Fingerprint, *, planned: str, started: float
) -> ExtractAccounts:
    """Make the rows that the run folder lacks, and its accounts; `planned` identifies the manifest."""
    folder, embeddings = RunFolder(run_dir), RunFolder(run_dir).embeddings
    finished = ledger.recover(run_dir, embeddings, fingerprint, manifest)
    unfinished = manifest
    if len(finished):
        unfinished = manifest.filter(pc.invert(pc.is_in(manifest["call_id"], finished)))
        log.info(
            "%d of %d calls have their rows already: going on with the rest", len(manifest) - len(unfinished), len(manifest)
        )
    storage.write_text(folder.config, config.to_yaml())
    if len(unfinished):
        cluster.connect(config.ray)
        with cluster.Relay(Progress(len(unfinished)), PROGRESS_SEC) as send:
            rows = embed_calls(unfinished, config, fingerprint, send)
            filesystem, path = storage.open_location(embeddings)
            rows.write_parquet(path, filesystem=filesystem, partition_cols=["status"], ray_remote_args={"num_cpus": 0.25})
    counts, wall_sec = ledger.account(embeddings, manifest), round(time.monotonic() - started, 3)
    files = files_seen(manifest) if config.data.manifest is None else None
    accounts = ExtractAccounts.of(counts, wall_sec=wall_sec, fingerprint=fingerprint, manifest_sha256=planned, files=files)
    write_json(folder.extract, accounts, indent=2)
    log.info(accounts.line())
    if accounts.rows_noted:
        log.warning("warning: %d embedded rows say in their detail what is odd about recording or label", accounts.rows_noted)
    return _refuse_empty(run_dir, accounts)


def _refuse_empty(run_dir: str, accounts: ExtractAccounts) -> ExtractAccounts:
    """The accounts of a run that embedded something."""
    if not accounts.calls_embedded:
        words = f"not one call could be embedded: {accounts.line()}"
        raise WorkError(f"{run_dir}: {words}; its embeddings say of each call what is wrong")
    return accounts


def _is_below(location: str, root: str) -> bool:
    below, above = (storage.without_options(storage.absolute(place)).rstrip("/") + "/" for place in (location, root))
    return below.startswith(above)


def _is_whole(embeddings: str, manifest: pa.Table, accounts: ExtractAccounts) -> bool:
    try:
        return ledger.account(embeddings, manifest) == accounts.counts()
    except (RuntimeError, FileNotFoundError, pa.ArrowInvalid):
        return False


def _digest(manifest: pa.Table) -> str:
    # Where the corpus lies does not matter, what it holds does.
    columns = manifest.select(["call_id", "num_bytes", "version", "provider_split", "region", "reason"])
    digest = hashlib.sha256()
    for start in range(0, len(columns), ROWS_PER_DIGEST):
        digest.update(json.dumps(columns.slice(start, ROWS_PER_DIGEST).to_pydict()).encode())
    return digest.hexdigest()
