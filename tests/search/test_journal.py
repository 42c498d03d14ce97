"""A journal opens where symbolic links cannot be made, where a lock was left behind, and where some of it cannot be read."""

from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileOpenLock, JournalFileSymlinkLock

from urgency_ray.run_folder import SearchFolder
from urgency_ray.search.journal import open_journal


def run_trials(folder: Path, num_trials: int) -> int:
    """Trials in the study after some more."""
    with open_journal(SearchFolder(str(folder))) as journal:
        study = optuna.create_study(study_name="a", storage=journal.storage, load_if_exists=True)
        for _ in range(num_trials):
            study.tell(study.ask(), 1.0)
        return len(study.trials)


def test_symbolic_links_are_done_without_where_there_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.symlink", fail)
    monkeypatch.setattr("pathlib.Path.symlink_to", fail)
    assert run_trials(tmp_path, 2) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["study.log"]


@pytest.mark.parametrize("kind", [JournalFileSymlinkLock, JournalFileOpenLock])
def test_the_lock_of_a_process_that_is_gone_does_not_hold_up(
    tmp_path: Path, kind: type[JournalFileSymlinkLock | JournalFileOpenLock]
) -> None:
    assert run_trials(tmp_path, 1) == 1
    assert kind(str(tmp_path / "study.log")).acquire()
    assert run_trials(tmp_path, 1) == 2


def test_what_stands_before_a_damaged_line_is_kept_and_the_line_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_trials(tmp_path, 3)
    path = tmp_path / "study.log"
    lines = path.read_bytes().splitlines(keepends=True)
    # Records of a study and of its first trial; the second's first record is where the disk failed.
    number = next(index for index, line in enumerate(lines) if b'"trial_id":0' in line) + 2
    path.write_bytes(b"".join([*lines[:number], b"\x00\xff\x00\n", *lines[number + 1 :]]))
    kept = run_trials(tmp_path, 0)
    assert 1 <= kept < 3
    assert f"study.log: line {number + 1} cannot be read" in caplog.text
    assert (tmp_path / "study.log.damaged").read_bytes() == b"".join([b"\x00\xff\x00\n", *lines[number + 1 :]])
    assert run_trials(tmp_path, 1) == kept + 1


def test_a_last_line_without_its_end_goes_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run_trials(tmp_path, 1)
    path = tmp_path / "study.log"
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[-1])  # a whole record, and still not its end
    assert run_trials(tmp_path, 0) == 1
    assert path.read_bytes().startswith(whole)
    assert whole.splitlines()[-1] not in path.read_bytes().removeprefix(whole)
    assert "cannot be read" not in caplog.text
