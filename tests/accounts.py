"""extract.json for embeddings that a test writes itself."""

from urgency_ray.accounts import ExtractAccounts
from urgency_ray.fingerprint import IMPORTED, Fingerprint


def make_accounts(num_rows: int) -> ExtractAccounts:
    """The accounts of an import in which each of `num_rows` rows was a call, and embedded."""
    return ExtractAccounts(
        calls_read=num_rows,
        calls_embedded=num_rows,
        calls_rejected=0,
        rejected_by_reason={},
        rows_embedded=num_rows,
        rows_rejected=0,
        rows_rejected_by_reason={},
        audio_sec=0.0,
        rows_windowed=0,
        texts_windowed=0,
        texts_truncated=0,
        tokens_dropped=0,
        wall_sec=0.0,
        fingerprint=Fingerprint(audio_encoder=IMPORTED, text_encoder=IMPORTED, code_version="0.2.0"),
        manifest_sha256="",
    )
