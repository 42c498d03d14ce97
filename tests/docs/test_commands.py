"""What the documents tell one to type, and where they say things are: commands, options, targets, modules."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from urgency_ray import cli
from urgency_ray.config import iter_fields, load_config

ROOT = Path(__file__).parents[2]
DOCS = [f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md"))]
PAGES = ("README.md", "README.ko.md", "CONTRIBUTING.md", *DOCS)
TEXTS = {name: (ROOT / name).read_text(encoding="utf-8") for name in PAGES}
FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)


def shown_commands(text: Any) -> Iterator[Any]:
    """The arguments of each `urgency-ray` and jobs/ command line, in fenced blocks and in backticks."""
    shells = [block for language, block in FENCED.findall(text) if language in ("", "bash")]
    lines = "".join(shells).replace("\\\n", " ").splitlines()
    lines += [span.replace("\n", " ") for span in re.findall(r"`([^`]+)`", FENCED.sub("", text))]
    for line in lines:
        if found := re.search(r"(?:^|\s)(?:urgency-ray (?=[a-z])|python jobs/(?P<job>\w+)\.py )(?P<rest>.*)", line):
            words = shlex.split(f"{found['job'] or ''} {found['rest']}", comments=True)
            if "--help" not in words:
                yield words


COMMANDS = [pytest.param(words, id=f"{name} {words[0]}") for name, text in TEXTS.items() for words in shown_commands(text)]


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_that_is_shown_can_be_given(words: Any) -> None:
    options, unknown = cli.build_parser().parse_known_args(words)
    assert unknown == []
    # A recipe is there, and takes what the line sets beside it.
    recipe = None if options.config is None else ROOT / options.config
    assert load_config(recipe, {field: value for field, value in vars(options).items() if "." in field})


def test_the_commands_are_found() -> None:
    found = {name: [words[0] for words in shown_commands(text)] for name, text in TEXTS.items()}
    steps = ["doctor", "extract", "train", "predict", "report", "compare", "tune", "predict", "evaluate", "extract", "train"]
    assert found["README.md"] == found["README.ko.md"] == steps
    assert found["docs/data.md"] == ["doctor", "extract", "extract", "predict", "import", "export"]
    assert found["CONTRIBUTING.md"] == ["synthesize", "extract", "train"]
    assert found["docs/cluster.md"] == ["extract", "train", "tune", "predict", "evaluate", "report"]


@pytest.mark.parametrize("name", TEXTS)
def test_each_option_that_is_named_exists(name: Any) -> None:
    named = set(re.findall(r"(?<![\w-])--(\w+\.\w+)", TEXTS[name]))
    assert named - {field for field, _ in iter_fields()} <= {"section.field"}


def test_each_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {target for text in TEXTS.values() for target in re.findall(r"(?:^|`)make (\w+)", text, re.MULTILINE)}
    assert {"demo", "test", "check"} <= named <= targets


def test_each_module_that_is_named_is_there() -> None:
    for name in ("README.md", "README.ko.md", "CONTRIBUTING.md"):
        # The package's own name is left out where its wings are meant.
        paths = set(re.findall(r"`((?:[a-z_]+/)*[a-z_]+(?:\.py|\.yaml|/))`", FENCED.sub("", TEXTS[name])))
        paths = {path for path in paths if not path.startswith(("tests/", "tune/")) and path != "config.yaml"}
        assert len(paths) > 8
        assert [path for path in paths if not ((ROOT / path).exists() or (ROOT / "urgency_ray" / path).exists())] == [], name


def test_the_plan_that_is_told_is_that_of_the_package() -> None:
    (plan,) = (block for _, block in FENCED.findall(TEXTS["CONTRIBUTING.md"]) if block.startswith("urgency_ray/"))
    named = {entry for line in plan.splitlines()[1:] for entry in re.findall(r"(?:^|(?<=  ))[a-z_]+(?:\.py|/)", line)}
    package = ROOT / "urgency_ray"
    wings = {f"{path.parent.name}/" for path in package.glob("*/__init__.py")}
    assert named == wings | {path.name for path in package.glob("*.py")} - {"__init__.py"}


LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)\)")


@pytest.mark.parametrize("name", TEXTS)
def test_each_link_leads_to_a_file(name: str) -> None:
    links = [link for link in LINK.findall(TEXTS[name]) if "://" not in link]
    assert [link for link in links if not (ROOT / name).parent.joinpath(link).exists()] == []


def test_each_page_of_docs_is_linked_from_the_readme() -> None:
    assert set(DOCS) <= set(LINK.findall(TEXTS["README.md"]))


def test_both_readmes_say_the_same() -> None:
    english, korean = TEXTS["README.md"], TEXTS["README.ko.md"]
    blocks = [[(kind, re.sub("#.*", "", block)) for kind, block in FENCED.findall(text)] for text in (english, korean)]
    assert blocks[0] == blocks[1]
    prose = [FENCED.sub("", text) for text in (english, korean)]
    for pattern in (r"\d+(?:\.\d+)*", r"`[^`]+`", LINK, r"(?m)^#+ ", r"(?m)^- ", r"(?m)^\|"):
        found = [sorted(re.findall(pattern, text)) for text in prose]
        if pattern is LINK:
            found = [[link for link in links if not link.startswith("README")] for links in found]
        assert found[0] == found[1]
