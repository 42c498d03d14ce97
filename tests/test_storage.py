from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from urgency_ray import storage
from urgency_ray.errors import RequestError


def test_the_options_of_a_uri_stay_at_its_end() -> None:
    assert (
        storage.join("s3://b/run?endpoint_override=h", "tune", "best.yaml") == "s3://b/run/tune/best.yaml?endpoint_override=h"
    )
    assert storage.join("runs/a", "model") == "runs/a/model"


def test_the_folder_of_a_file_keeps_the_options_of_a_uri() -> None:
    assert storage.folder_of("s3://b/out/new.csv?region=x") == "s3://b/out?region=x"
    assert storage.folder_of("out/what?.csv") == "out"


def test_uris_in_what_is_said_have_the_letters_of_names() -> None:
    assert storage.readable("s3://b/%EC%8B%A0%EA%B3%A0%201.wav: gone, 100%20") == "s3://b/신고 1.wav: gone, 100%20"
    assert storage.readable("s3://b/a%0Ab: gone") == "s3://b/a%0Ab: gone", "a line stays one"


def test_local_paths_become_absolute_and_uris_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.absolute("x/../y") == str(tmp_path / "y")
    assert storage.absolute("~/y") == str(tmp_path / "y")
    assert storage.absolute("gs://b/y") == "gs://b/y"


def test_an_unknown_scheme_is_one_line() -> None:
    with pytest.raises(RequestError, match=r"^foo://bar: cannot be opened: [^\n]+$"):
        storage.exists("foo://bar")


def test_a_file_is_seen_whole_or_not_at_all(tmp_path: Path) -> None:
    target = str(tmp_path / "folder" / "a.txt")
    storage.write_text(target, "처음")
    storage.write_text(target, "다시")
    assert storage.read_text(target) == "다시"
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["a.txt"]


def test_two_that_write_the_same_file_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    target = str(tmp_path / "a.txt")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: storage.write_text(target, str(number) * 1000), range(200)))
    assert len(storage.read_text(target)) in (1000, 2000, 3000)
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_goes_over_what_is_there(tmp_path: Path) -> None:
    storage.write_text(str(tmp_path / "a" / "deep" / "x"), "1")
    storage.write_text(str(tmp_path / "b" / "y"), "2")
    storage.copy_dir(str(tmp_path / "a"), str(tmp_path / "b"))
    assert storage.read_text(str(tmp_path / "b" / "deep" / "x")) == "1"
    assert storage.exists(str(tmp_path / "b" / "y"))


def test_a_folder_whose_copy_is_cut_short_leaves_whole_files_old_or_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("config.json", "model.safetensors"):
        storage.write_text(str(tmp_path / "new" / name), "new")
        storage.write_text(str(tmp_path / "model" / name), "old")
    replace, moved = Path.replace, list[Path]()

    def fail_at_the_second(path: Any, target: Any) -> Any:
        if moved:
            raise InterruptedError
        moved.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", fail_at_the_second)
    with pytest.raises(InterruptedError):
        storage.copy_dir(str(tmp_path / "new"), str(tmp_path / "model"))
    assert {path.name: path.read_text() for path in (tmp_path / "model").iterdir()} == {
        "config.json": "new",
        "model.safetensors": "old",
    }
