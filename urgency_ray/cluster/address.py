"""Whether an address is one that a Ray cluster can be joined by, within seconds: Ray itself would try for minutes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from urgency_ray.errors import RequestError

ANSWER_SEC = 10.0
ASK = "/ray.rpc.NodeInfoGcsService/GetClusterId"
"""What a process asks first that joins; an empty request is a whole one."""
WANTED = "HOST:PORT of the cluster's head, whose port is 6379 as a rule"


def check_address(address: str, name: str) -> None:
    """Ask at an address, `local` and `auto` apart, whether it is that of a cluster's head.

    Args:
        address: as `ray.address`.
        name: where it was given: `ray.address`, `RAY_ADDRESS`.

    Raises:
        RequestError: it is another kind of address, or the cluster wants a token that is not here.
        ConnectionError: nothing answers there.
    """
    if address in ("local", "auto"):
        return
    if address.startswith("ray://"):
        raise RequestError(
            f"{name} {address}: a Ray client's address, and the work needs a driver inside the cluster: submit a job "
            f"(jobs/), or run this on a node of it, with {WANTED}"
        )
    if "://" in address:
        raise RequestError(
            f"{name} {address}: takes {WANTED}; where jobs are submitted to is said by RAY_API_SERVER_ADDRESS, or "
            "ray job submit --address"
        )
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise RequestError(f"{name} {address}: must be {WANTED}, auto or local")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SEC / 2).close()
    except OSError as error:
        raise ConnectionError(f"{name} {address}: no Ray cluster answers there ({error.strerror or error})") from None
    if not _is_encrypted():
        _ask_head(address, name)


def _is_encrypted() -> bool:
    # As Ray reads it. With certificates, or the tokens of Kubernetes, Ray is left to ask for itself.
    return os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true") or _auth_mode() not in ("disabled", "token")


def _auth_mode() -> str:
    return os.environ.get("RAY_AUTH_MODE", "disabled").lower()


def _ask_head(address: str, name: str) -> None:
    import grpc

    token = _read_token() if _auth_mode() == "token" else None
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(ASK)(b"", timeout=ANSWER_SEC, metadata=metadata)
            return
        except grpc.RpcError as error:
            code = error.code()
    if code == grpc.StatusCode.UNAUTHENTICATED:
        wanted = "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to its token"
        said = "refuses the token that is here" if token else "wants a token"
        raise RequestError(f"{name} {address}: the cluster {said}: {wanted}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        raise ConnectionError(f"{name} {address}: no Ray cluster answers there within {ANSWER_SEC:g} s")
    raise RequestError(
        f"{name} {address}: what answers there is no Ray cluster's head; it takes {WANTED} (8265 is the dashboard's, 10001 "
        "Ray client's)"
    )


def _read_token() -> str | None:
    """The token where Ray looks for it."""
    if token := os.environ.get("RAY_AUTH_TOKEN"):
        return token.strip()
    try:
        place = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token")
        return place.expanduser().read_text(encoding="utf-8").strip() or None
    except OSError:
        return None
