"""Whether every node sees the places that a command works on, asked before the work and not found out at its end."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable, Mapping
from typing import NamedTuple

from urgency_ray import storage
from urgency_ray.cluster.node import ask_nodes
from urgency_ray.errors import RequestError

PROBE = ".probe-"
ADVICE = "choose a place that all nodes share, a shared disk or a URI, with keys that all of them have"
Ask = Callable[[Callable[[], "Answer"]], list["Answer"]]


class Answer(NamedTuple):
    """What one node says.

    Attributes:
        node: which it is, for the user.
        fault: the first place that it cannot use and why; None where there is none.
        marks: what it wrote, by option.
    """

    node: str
    fault: str | None
    marks: dict[str, str]


def check_reach(shared: Mapping[str, str], seen: Mapping[str, str], ask: Ask = ask_nodes) -> None:
    """Let each node read what this process writes, and write what this process reads, and look at what it will need.

    Args:
        shared: folders, paths or URIs, that all write in, by the option that gave them: `--run-dir`.
        seen: files and folders that all read, likewise.
        ask: puts a question to all nodes.

    Raises:
        RequestError: one does not; the text names the option, the place, the node and what it says.
        UnreachableError: a node gives no answer.
    """
    token = uuid.uuid4().hex
    marks = {name: storage.join(storage.absolute(folder), f"{PROBE}{token}") for name, folder in shared.items()}
    written = list(marks.values())
    try:
        for name, mark in marks.items():
            if fault := _write(mark, token):
                raise RequestError(f"{name} {shared[name]}: cannot be written to: {fault}")
        for answer in ask(functools.partial(_look, marks, dict(seen), token)):
            written += answer.marks.values()
            fault = answer.fault or _find_unseen(answer, token, shared)
            if fault:
                raise RequestError(f"{fault}; {ADVICE}")
    finally:
        for mark in written:
            with contextlib.suppress(OSError):
                storage.remove_file(mark)


def _look(marks: Mapping[str, str], seen: Mapping[str, str], token: str) -> Answer:
    """On a node: read the driver's marks and write others beside them; where one is not there, write nothing."""
    node = _name_node()
    mine: dict[str, str] = {}
    for name, mark in marks.items():
        place = f"{name} {mark.replace(f'/{PROBE}{token}', '')}: {node}"
        if fault := _read(mark, token):
            return Answer(node, f"{place} does not see what lies there ({fault})", mine)
        mine[name] = storage.add_suffix(mark, f"-{uuid.uuid4().hex[:8]}")
        if fault := _write(mine[name], token):
            return Answer(node, f"{place} cannot write there ({fault})", mine)
    for name, location in seen.items():
        try:
            fault = None if storage.exists(location) else "no such file or folder"
        except (OSError, RequestError) as error:
            fault = _one_line(error)
        if fault:
            return Answer(node, f"{name} {location}: {node} does not see it ({fault})", mine)
    return Answer(node, None, mine)


def _find_unseen(answer: Answer, token: str, shared: Mapping[str, str]) -> str | None:
    for name, mark in answer.marks.items():
        if fault := _read(mark, token):
            return f"{name} {shared[name]}: what {answer.node} writes there is not seen by others ({fault})"
    return None


def _write(mark: str, token: str) -> str | None:
    """What stands in the way, if anything does; so below."""
    try:
        storage.write_text(mark, token)
    except (OSError, RequestError) as error:
        return _one_line(error)
    return None


def _read(mark: str, token: str) -> str | None:
    try:
        return None if storage.read_text(mark) == token else "it holds something else"
    except FileNotFoundError:
        return "no such file"
    except (OSError, RequestError) as error:
        return _one_line(error)


def _one_line(error: OSError | RequestError) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def _name_node() -> str:
    import ray

    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return f"node {address} ({ray.get_runtime_context().get_node_id()[:8]})"
