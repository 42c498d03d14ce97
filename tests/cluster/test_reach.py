"""A place that a node does not see is named before the work."""

from pathlib import Path
from typing import Any

import pytest

from urgency_ray import cli, storage
from urgency_ray.cluster.reach import Answer, check_reach
from urgency_ray.errors import RequestError

DENIED = "When reading 'k': AWS Error ACCESS_DENIED during HeadObject operation: No response body."


def ask_here(question: Any) -> list[Answer]:
    """The answers of two nodes, which are this process."""
    return [question(), question()]


def test_where_all_see_all_nothing_is_left(ray_session: None, tmp_path: Path) -> None:
    (tmp_path / "calls").mkdir()
    check_reach({"--run-dir": str(tmp_path / "run")}, {"--data.root": str(tmp_path / "calls")}, ask_here)
    check_reach({"--run-dir": str(tmp_path / "run")}, {"--data.root": str(tmp_path / "calls")})
    assert list((tmp_path / "run").iterdir()) == []


def test_a_folder_that_one_does_not_see_is_named_with_the_node(
    ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(question: Any) -> list[Answer]:
        seeing = question()
        with monkeypatch.context() as patch:
            # Another disk at the same path.
            patch.setattr(storage, "open_location", lambda location, open_=storage.open_location: open_(f"/nowhere{location}"))
            return [seeing, question()]

    with pytest.raises(RequestError) as caught:
        check_reach({"--run-dir": str(tmp_path)}, {}, ask)
    assert str(caught.value).startswith(f"--run-dir {tmp_path}: node ")
    assert "does not see what lies there (no such file); choose a place that all nodes share" in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert not Path("/nowhere").exists()


def test_keys_that_only_the_driver_has_are_one_line(ray_session: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def deny(*arguments: Any) -> bytes:
        raise OSError(DENIED)

    def ask(question: Any) -> list[Answer]:
        with monkeypatch.context() as patch:
            patch.setattr(storage, "read_bytes", deny)
            return [question()]

    with pytest.raises(
        RequestError, match=r"^--run-dir .*: node .* does not see what lies there \(When reading 'k': AWS Error"
    ):
        check_reach({"--run-dir": str(tmp_path)}, {}, ask)


def test_what_a_node_writes_for_itself_alone_is_noticed(ray_session: None, tmp_path: Path) -> None:
    def ask(question: Any) -> list[Answer]:
        answer = question()
        for mark in answer.marks.values():
            Path(mark).unlink()
        return [answer]

    with pytest.raises(RequestError, match=r"^--run-dir .*: what node .* writes there is not seen by others \(no such file"):
        check_reach({"--run-dir": str(tmp_path)}, {}, ask)


def test_calls_or_an_encoder_that_a_node_lacks_are_named(ray_session: None, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"^--audio_encoder.name .*/m: node .* does not see it \(no such file or folder\)"):
        check_reach({}, {"--data.root": str(tmp_path), "--audio_encoder.name": str(tmp_path / "m")}, ask_here)


def test_a_place_that_the_driver_cannot_write_is_said_before_anybody_is_asked(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RequestError, match=r"^--run-dir .*/file/run: cannot be written to: "):
        check_reach({"--run-dir": str(tmp_path / "file" / "run")}, {}, lambda _: pytest.fail("a node was asked"))


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["extract", "--run-dir", "runs/x", "--data.root", "/calls"], "--run-dir runs/x"),
        (["extract", "--run-dir", "/runs/x", "--data.root", "calls"], "--data.root calls"),
        (["predict", "--model", "/m", "--output", "new.csv", "--data.root", "/calls"], "--output new.csv"),
    ],
)
def test_relative_paths_of_a_job_are_refused(
    arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert cli.main(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {name}: in a submitted job, a relative path lies in Ray's copy of the working directory")
    assert "give an absolute path" in line
