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
from urgency_ray.calls.plan import describe_plan, files_seen, plan_calls
from urgency_ray.calls.sample import sample_transcripts
from urgency_ray.config import Config
from urgency_ray.embedding import ledger, recovery
from urgency_ray.embedding.compaction import compact
from urgency_ray.embedding.pipeline import digest_planned, embed_calls
from urgency_ray.embedding.progress import Progress
from urgency_ray.embedding.transform import make_fingerprint, open_arithmetic, pin_arithmetic, pin_revisions, places_read
from urgency_ray.encoders.load import is_built_in
from urgency_ray.encoders.probe import check_vocabulary, probe_encoders
from urgency_ray.encoders.settings import pin_settings
from urgency_ray.errors import RequestError
from urgency_ray.fingerprint import Fingerprint, refuse_other
from urgency_ray.patience import patiently
from urgency_ray.run_folder import RunFolder, write_json
from urgency_ray.secret import refuse_listed_secrets

log = logging.getLogger(__name__)

ROWS_PER_DIGEST = 8192
SAMPLE_CALLS = 20
NOTHING_TO_DO = "%s holds the embeddings of these calls already: nothing to do"


def extract(config: Config, run_dir: str) -> ExtractAccounts:
    """Embed every call of `config.data` into `<run_dir>/embeddings`; write `extract.json` and return it.

    Calls that have their rows are not done again, be the run finished or not: new calls, and those whose content has changed,
    are. A file with another modification time is read again, and where it says what it said, its call is kept. So a run grows
    with its calls, and a finished one of the same calls, encoders and settings is left as it is.

    Raises:
        RequestError: no calls there, an encoder cannot be loaded, embedded calls are there no more, the run folder holds
            something else or is among the calls, or a node does not see it, the calls or an encoder.
        UnreachableError: a file of a call cannot be reached; what is done is kept.
        WorkError: every call was rejected.
    """
    started = time.monotonic()
    if config.data.root is not None and _is_below(run_dir, config.data.root):
        raise RequestError(
            f"--run-dir {run_dir}: lies below data.root, where its files would be taken for calls; choose another"
        )
    folder = RunFolder(run_dir)
    config = pin_settings(pin_revisions(config))
    is_finished = storage.exists(folder.extract)
    if not is_finished:
        probe_encoders(config)
    manifest = plan_calls(config.reading)
    refuse_listed_secrets(manifest, "--data.manifest")
    for line in describe_plan(manifest):
        log.info(line)
    if open_arithmetic(config):
        cluster.connect(config.ray)
        config = pin_arithmetic(config, cluster.num_gpus(), cluster.ask_nodes)
    fingerprint = make_fingerprint(config)
    planned, former = _digest(manifest), None
    if is_finished:
        former = ExtractAccounts.read(run_dir)
        refuse_other(run_dir, former.fingerprint, fingerprint)
        if _is_done(run_dir, manifest, former, planned):
            return former.refuse_empty(run_dir)
    with lease.hold(folder.lease("extract"), f"extract into {run_dir}"):
        return _go_on(config, run_dir, manifest, fingerprint, former, planned=planned, started=started)


def _is_done(run_dir: str, manifest: pa.Table, former: ExtractAccounts, planned: str) -> bool:
    """Whether a finished run is of these calls as they are, as far as can be told without reading one.

    `planned` is the digest of the manifest, here and below.
    """
    if former.manifest_sha256 != planned:
        log.info("what lies below data.root has changed since %s was finished: going on with that", run_dir)
        return False
    if not _is_whole(RunFolder(run_dir).embeddings, manifest, former):
        log.warning("warning: %s lacks files that it once had: their calls are done again", RunFolder(run_dir).embeddings)
        return False
    if former.rows_rejected_by_reason.keys() & {reason.value for reason in recovery.MENDED}:
        return False
    log.info(NOTHING_TO_DO, run_dir)
    return True


def _go_on(
    config: Config,
    run_dir: str,
    manifest: pa.Table,
    fingerprint: Fingerprint,
    former: ExtractAccounts | None,
    *,
    planned: str,
    started: float,
) -> ExtractAccounts:
    """Make the rows that the run folder lacks, and its accounts; `former` are those of a finished run."""
    folder, embeddings = RunFolder(run_dir), RunFolder(run_dir).embeddings
    left = patiently(embeddings, lambda: recovery.Left(embeddings, manifest))
    left.refuse_other(run_dir, fingerprint)
    kept = _find_kept(left, manifest, config)
    # A filter copies, and at first there is nothing to leave out.
    unfinished = manifest.filter(pc.invert(pc.is_in(manifest["call_id"], kept))) if len(kept) else manifest
    if former is not None and former.manifest_sha256 == planned and not len(unfinished) and left.is_settled(kept):
        log.info(NOTHING_TO_DO, run_dir)
        return former.refuse_empty(run_dir)
    if len(unfinished):
        _check_encoders(config, manifest, is_checked=former is None)
        cluster.connect(config.ray)
        cluster.check_reach({"--run-dir": run_dir}, places_read(config))
    if len(kept):
        log.info(
            "%d of %d calls have their rows already: going on with the rest", len(manifest) - len(unfinished), len(manifest)
        )
    # From here to the end the run is an unfinished one, that nobody trains on.
    storage.remove_file(folder.extract)
    storage.write_text(folder.config, config.to_yaml())
    left.keep(kept)
    if len(unfinished):
        _embed(config, embeddings, unfinished, fingerprint)
    compact(embeddings)
    counts = patiently(embeddings, lambda: ledger.account(embeddings, manifest))
    wall_sec = round(time.monotonic() - started, 3)
    files = files_seen(manifest)
    accounts = ExtractAccounts.of(counts, wall_sec=wall_sec, fingerprint=fingerprint, manifest_sha256=planned, files=files)
    write_json(folder.extract, accounts, indent=2)
    log.info(accounts.line())
    if line := accounts.transcript_line():
        log.info(line)
    if accounts.rows_noted:
        log.warning("warning: %d embedded rows say in their detail what is odd about recording or label", accounts.rows_noted)
    if former is not None and storage.exists(folder.metrics):
        log.warning("warning: the model in %s was trained on what it held before: train again", run_dir)
    return accounts.refuse_empty(run_dir)


def _find_kept(left: recovery.Left, manifest: pa.Table, config: Config) -> pa.Array:
    """Ids of the calls whose rows stay."""
    if not len(left.doubtful):
        return left.current
    log.info("%d calls may have changed: reading them again", len(left.doubtful))
    cluster.connect(config.ray)
    doubtful = manifest.filter(pc.is_in(manifest["call_id"], left.doubtful))
    same = left.unchanged(digest_planned(doubtful, config))
    log.info("%d of them are as they were, %d are done again", len(same), len(doubtful) - len(same))
    return pa.concat_arrays([left.current, same])


def _check_encoders(config: Config, manifest: pa.Table, *, is_checked: bool) -> None:
    """What can be known of the encoders before the work; `is_checked`: that they can be loaded is known already."""
    if not is_checked:
        probe_encoders(config)
    if not is_built_in(config.text_encoder):
        check_vocabulary(config.text_encoder, sample_transcripts(manifest, config.data, SAMPLE_CALLS))


def _embed(config: Config, embeddings: str, manifest: pa.Table, fingerprint: Fingerprint) -> None:
    with Progress(len(manifest), "extract") as progress, cluster.Relay(progress, progress.every_sec) as send:
        rows = embed_calls(manifest, config, fingerprint, send)
        filesystem, path = storage.open_location(embeddings)
        rows.write_parquet(path, filesystem=filesystem, partition_cols=["status"], ray_remote_args={"num_cpus": 0.25})


def _is_below(location: str, root: str) -> bool:
    below, above = (storage.without_options(storage.absolute(place)).rstrip("/") + "/" for place in (location, root))
    return below.startswith(above)


def _is_whole(embeddings: str, manifest: pa.Table, accounts: ExtractAccounts) -> bool:
    try:
        return ledger.account(embeddings, manifest) == accounts.counts()
    except (RuntimeError, FileNotFoundError):
        return False
    except (pa.ArrowException, OSError) as error:
        if not storage.is_damage(error):
            raise
        return False


def _digest(manifest: pa.Table) -> str:
    # Where the corpus lies does not matter, what it holds does.
    columns = manifest.select(["call_id", "num_bytes", "version", "provider_split", "region", "reason"])
    digest = hashlib.sha256()
    for start in range(0, len(columns), ROWS_PER_DIGEST):
        digest.update(json.dumps(columns.slice(start, ROWS_PER_DIGEST).to_pydict()).encode())
    return digest.hexdigest()
