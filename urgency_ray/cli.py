# PYTHON_ARGCOMPLETE_OK
"""`urgency-ray <command>`: the one entry point of laptop, jobs/ and demo.

Exit codes: 0 done, 1 the work failed, 2 the request was wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from urgency_ray import __version__, cluster, faults, guidance, secret, storage
from urgency_ray.config import Config, describe, iter_fields, load_config, read_field
from urgency_ray.errors import RequestError
from urgency_ray.run_folder import RunFolder

log = logging.getLogger("urgency_ray")


@dataclass(frozen=True)
class Command:
    """What a command does, the options besides the config's fields (all paths, required), and the function behind it.

    `extras` are options that may be left out, `switches` those that stand alone (True) or with `auto`. `runs` says that run
    folders come first, without a flag.
    """

    summary: str
    options: tuple[str, ...]
    run: Callable[[Config, argparse.Namespace], None]
    extras: tuple[str, ...] = ()
    switches: tuple[str, ...] = ()
    runs: bool = False


# Each command is imported when it runs: `--help` and a wrong request answer at once, without Ray or torch.
def _synthesize(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.synthesize.corpus import synthesize

    if config.data.root is None:
        raise RequestError("--data.root: say where to write the corpus")
    synthesize(config.data.root, config.synthesize)


def _doctor(config: Config, options: argparse.Namespace) -> None:
    asked = {"--cpus": options.cpus, "--gpus": options.gpus}
    cpus, gpus = (None if text is None else _parse_count(flag, text) for flag, text in asked.items())
    from urgency_ray.commands.doctor import doctor

    doctor(config, cpus=cpus, gpus=gpus)


def _parse_count(flag: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise RequestError(f"{flag}: must be a whole number > 0 but got {text!r}")
    return int(text)


def _extract(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.commands.extract import extract

    extract(config, options.run_dir)


def _train(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.commands.train import format_scores, train

    print(format_scores(train(config, options.run_dir)))
    print(f"model: {RunFolder(options.run_dir).model}")


def _tune(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.commands.tune import tune

    tune(config, options.run_dir, resume=options.resume)


def _evaluate(config: Config, options: argparse.Namespace) -> None:
    asked = {"--recall-of-high": options.recall_of_high, "--confidence": options.confidence}
    shares = {flag: _parse_share(flag, text) for flag, text in asked.items() if text is not None}
    if "--confidence" in shares and "--recall-of-high" not in shares:
        raise RequestError("--confidence: says how sure to be of a recall: give --recall-of-high, too")
    from urgency_ray.commands.evaluate import CONFIDENCE, evaluate_run
    from urgency_ray.scoring.calibration import format_operating_point
    from urgency_ray.scoring.metrics import format_report

    recall, confidence = shares.get("--recall-of-high"), shares.get("--confidence", CONFIDENCE)
    evaluation = evaluate_run(config, options.run_dir, recall, confidence)
    for split, tasks in evaluation.splits.items():
        for task, block in tasks.items():
            print(f"{task} on {split}\n{format_report(block)}\n")
    if evaluation.operating_point is not None:
        print(format_operating_point(evaluation.operating_point))


def _parse_share(flag: str, text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0.0 < float(text) < 1.0:
            return float(text)
    raise RequestError(f"{flag}: must be a number > 0 and < 1 but got {text!r}")


def _predict(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.commands.predict import predict

    predict(config, options.model, options.output)


def _report(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.report.page import write_report

    log.info("report: %s", write_report(options.run_dir, config.report))


def _compare(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.commands.compare import compare

    compare(config, options.runs, options.output)


def _import(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.commands.interchange import import_artefacts

    import_artefacts(config, options.metadata, options.embeddings, options.run_dir)


def _export(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.commands.interchange import export_artefacts

    export_artefacts(config, options.run_dir, options.metadata, options.embeddings)


def _demo(config: Config, options: argparse.Namespace) -> None:
    from urgency_ray.commands.demo import demo

    demo(config, options.run_dir)


OPTIONS = {
    "run_dir": "run folder: a local path, or a URI such as s3://bucket/run",
    "model": "model folder of a trained run: a local path or a URI",
    "output": "file to write, a local path or a URI: predictions as .parquet or .csv; the page of compare as .html "
    "(compare.html in the first run folder where it is left out)",
    "runs": "run folders, local paths or URIs; the others are compared with the first",
    "metadata": "metadata.csv (UrgencySense) or processed_data.csv (UrgencyDetect): a local path or a URI",
    "embeddings": "embeddings.npz (UrgencySense) or wav2vec2_embeddings.npy (UrgencyDetect): a local path or a URI",
    "recall_of_high": "also find the threshold on P(상) for this recall of 상 among new calls (0.95, say), and what it costs",
    "confidence": "how sure to be of --recall-of-high (0.9 by default)",
    "cpus": "CPUs of another cluster, to estimate for (those that are here by default)",
    "gpus": "GPUs of another cluster, likewise",
    "resume": "go on with the run folder's last search, with the config that it began with (tune.num_trials may grow); "
    "auto begins one where there is none: one command for a job that may be retried",
}

LOCATIONS = ("run_dir", "runs", "model", "output", "metadata", "embeddings")
WHERE_CALLS_LIE = ("data.root", "data.manifest", "data.manifest_columns")

# In the order of the work.
COMMANDS = {
    "demo": Command("synthesize a corpus, then extract, train, tune and report on it", ("run_dir",), _demo),
    "synthesize": Command("write a synthetic corpus in AI-Hub's layout to --data.root", (), _synthesize),
    "doctor": Command(
        "say what this machine offers, whether a config would run on it, and how long extract takes",
        (),
        _doctor,
        ("cpus", "gpus"),
    ),
    "extract": Command("turn calls, below --data.root or of --data.manifest, into embeddings", ("run_dir",), _extract),
    "import": Command("make a run folder of published embeddings", ("metadata", "embeddings", "run_dir"), _import),
    "train": Command("train a classifier on a run folder's embeddings and score it", ("run_dir",), _train),
    "tune": Command("search for the best validation macro-F1 and score the winner", ("run_dir",), _tune, switches=("resume",)),
    "evaluate": Command(
        "print the classification report of a run folder's model", ("run_dir",), _evaluate, ("recall_of_high", "confidence")
    ),
    "report": Command("write a run folder's report.html", ("run_dir",), _report),
    "compare": Command("lay runs side by side on their common test calls", (), _compare, ("output",), runs=True),
    "predict": Command(
        "classify calls, below --data.root or of --data.manifest, with a saved model", ("model", "output"), _predict
    ),
    "export": Command("write embeddings as the published systems do", ("run_dir", "metadata", "embeddings"), _export),
}


class _Terminal(logging.Handler):
    """Log lines as they are, on whatever stderr is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        print(storage.readable(secret.blot(self.format(record))), file=sys.stderr)


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line and exit code 2."""

    def error(self, message: str) -> NoReturn:
        raise RequestError(f"{self.prog}: {message}")


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; every config field is an option with its doc, what it takes and its default."""
    parser = _Parser(
        prog="urgency-ray",
        description="Urgency of Korean 119 emergency calls, with Ray.",
        epilog=guidance.format_examples(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"urgency-ray {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        flags, extras = ([_flag(option) for option in options] for options in (command.options, command.extras))
        sub = commands.add_parser(
            name,
            usage=" ".join(
                [
                    "%(prog)s",
                    *(["RUN RUN ..."] if command.runs else []),
                    *(f"{flag} PATH" for flag in flags),
                    *(f"[{flag} VALUE]" for flag in extras),
                    *(f"[{_flag(switch)} [auto]]" for switch in command.switches),
                    "[--config FILE] [--section.field VALUE ...]",
                ]
            ),
            help=command.summary,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            allow_abbrev=False,
            formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=36, width=120),
        )
        if command.runs:
            sub.add_argument("runs", nargs="+", metavar="RUN", help=OPTIONS["runs"])
        sub.add_argument("--config", metavar="FILE", help="YAML (a local path or a URI) of differences from the defaults")
        for option, flag in zip(command.options, flags, strict=True):
            sub.add_argument(flag, required=True, metavar="PATH", help=OPTIONS[option])
        for option, flag in zip(command.extras, extras, strict=True):
            sub.add_argument(flag, metavar="VALUE", help=OPTIONS[option])
        for switch in command.switches:
            sub.add_argument(_flag(switch), nargs="?", const=True, default=False, choices=["auto"], help=OPTIONS[switch])
        groups = {section: sub.add_argument_group(section) for section in Config.model_fields}
        defaults = Config().model_dump()
        for dotted, field in iter_fields():
            section, key = dotted.split(".")
            default = defaults[section][key]
            shown = "null" if default is None else str(default).lower() if isinstance(default, bool) else default
            doc = f"{field.description} Takes {describe(field)}. Default: {shown}".replace("%", "%%")
            groups[section].add_argument(f"--{dotted}", dest=dotted, metavar="VALUE", default=argparse.SUPPRESS, help=doc)
    return parser


def _flag(option: str) -> str:
    return "RUN" if option == "runs" else f"--{option.replace('_', '-')}"


def _places(value: object) -> list[str]:
    """The texts of an option's value: it itself, those of a list."""
    return [value] if isinstance(value, str) else value if isinstance(value, list) else []


def resolve_config(options: argparse.Namespace) -> Config:
    """--config, else the config.yaml of the run folder (of its search, to resume it), else the defaults; then the overrides.

    Raises:
        RequestError: a file or a field is refused.
    """
    overrides = {name: value for name, value in vars(options).items() if "." in name}
    folder = RunFolder(options.run_dir) if "run_dir" in options else None
    found = folder.config if folder is not None else None
    if folder is not None and getattr(options, "resume", False) and storage.exists(folder.search.config):
        found = folder.search.config
    kept = None
    if found is not None and storage.exists(found):
        kept = load_config(found, read=storage.read_text)
    if options.config is not None or kept is None:
        remote = options.config is not None and "://" in options.config
        config = load_config(options.config, overrides, read=storage.read_text if remote else None)
        if kept is None or config.data.root is not None or config.data.manifest is not None:
            return config
        # The run folder knows where its calls lie; a recipe does not.
        return config.replace({field: read_field(kept.model_dump(), field) for field in WHERE_CALLS_LIE})
    tree = kept.model_dump()
    if not overrides.keys().isdisjoint(WHERE_CALLS_LIE[:2]):
        tree["data"] |= {"root": None, "manifest": None}
    return load_config(None, overrides, base=tree)


def _refuse_relative(options: argparse.Namespace, config: Config) -> None:
    """Refuse, in a job, local paths below the folder that it runs in: that is Ray's copy of the code, and goes with the job."""
    if not cluster.in_job():
        return
    places = [(_flag(name), place) for name in ("run_dir", "runs", "output") for place in _places(vars(options).get(name))]
    places += [("--data.root", place) for place in _places(config.data.root)]
    for name, place in places:
        if "://" not in place and not place.startswith(("/", "~")):
            raise RequestError(
                f"{name} {place}: in a submitted job, a relative path lies in Ray's copy of the working directory, which goes "
                "with the job: give an absolute path on a disk that all nodes share, or a URI"
            )


def _set_up_terminal() -> None:
    if not log.handlers:
        log.addHandler(_Terminal())
        log.setLevel(logging.INFO)
    for stream in (sys.stdout, sys.stderr):
        # Without Korean (latin-1, C) it shows a question mark in its place: else an error stands where the figures should.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code and prints one line for an error that the user can mend."""
    _set_up_terminal()
    places: list[str] = []
    arguments, options = sys.argv[1:] if arguments is None else arguments, argparse.Namespace(command=None)
    try:
        _refuse_unknown_command(arguments)
        options, unknown = build_parser().parse_known_args(arguments)
        if unknown:
            raise RequestError(_unknown_option(unknown[0]))
        named = (*OPTIONS, *WHERE_CALLS_LIE)
        places += [place for name, value in vars(options).items() if name in named for place in _places(value)]
        for name in ("config", *OPTIONS):
            secret.refuse_secret(getattr(options, name, None), _flag(name))
        for name in LOCATIONS:
            for place in _places(getattr(options, name, None)):
                storage.refuse_missing_bucket(place, _flag(name))
        config = resolve_config(options)
        _refuse_relative(options, config)
        # What the command imports includes Ray Train, which reads some of it then.
        cluster.set_environment()
        COMMANDS[options.command].run(config, options)
        _say_what_is_next(options, config)
    except KeyboardInterrupt:
        behind = list(arguments)[1:] if list(arguments)[:1] == [options.command] else []
        said = guidance.describe_interrupted(options.command or "", behind)
        print(f"error: {storage.readable(secret.blot(said))}", file=sys.stderr)
        return 1
    except Exception as error:
        # What a user can mend is one line; anything else is a bug and keeps its traceback.
        known = faults.find_fault(error)
        if known is None:
            raise
        print(f"error: {storage.readable(secret.blot(faults.describe_fault(known, places)))}", file=sys.stderr)
        return 2 if isinstance(known, RequestError) else 1
    return 0


def _say_what_is_next(options: argparse.Namespace, config: Config) -> None:
    given = guidance.Given(getattr(options, "run_dir", None), config.data.root, options.config)
    if (made := guidance.describe_made(options.command, given)) is not None:
        log.info("made: %s", made)
    if (following := guidance.describe_next(options.command, given)) is not None:
        log.info("next: %s", following)


def _refuse_unknown_command(arguments: Sequence[str]) -> None:
    # argparse would list all commands. Its options before the command, --help and --version, take no value.
    name = next((argument for argument in arguments if not argument.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        advice = f"did you mean {near[0]}?" if near else "--help lists them"
        raise RequestError(f"urgency-ray: no such command {name}; {advice}")


def _unknown_option(option: str) -> str:
    name = option.split("=", maxsplit=1)[0]
    known = [f"--{dotted}" for dotted, _ in iter_fields()] + ["--config", *(_flag(name) for name in OPTIONS if name != "runs")]
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name}: no such option" + (f"; did you mean {near[0]}?" if near else "; --help lists them")


def _complete() -> None:
    """Answer a shell that completes a command line, where it asks and argcomplete is installed: that ends the process."""
    if "_ARGCOMPLETE" in os.environ:
        with contextlib.suppress(ImportError):
            import argcomplete

            argcomplete.autocomplete(build_parser())


def run() -> NoReturn:
    """Entry point of the `urgency-ray` script."""
    _complete()
    sys.exit(main())


if __name__ == "__main__":
    run()
