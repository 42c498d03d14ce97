"""What metrics.json and tune/metrics.json hold, as types.

A key that a type does not know is passed over when a file is read: a newer version may write more. One that is missing, or of
another kind, is refused. What is written are the fields that were set, in the order below: a figure that its rows do not
define is null, and a figure that nobody worked out is absent (`run_folder.write_json`).
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, model_validator

from urgency_ray.schema import URGENCY_LABELS

Interval = tuple[float, float]
"""Ends of a 95 % interval."""


class Figures(BaseModel):
    """Base of all that is reported: immutable, strict about types."""

    model_config = ConfigDict(frozen=True, strict=True)


class ClassFigures(Figures):
    """Figures of one class; `support` counts its rows."""

    precision: float
    recall: float
    f1: float
    support: int


class NetBenefit(Figures):
    """Decision curve (Vickers and Elkin 2006): net benefit of flagging 상 where P(상) reaches each threshold.

    At a threshold t it is (found - false alarms * t / (1 - t)) / rows: a false alarm counts the odds at which somebody would
    just flag. Flagging none has 0.

    Attributes:
        thresholds: ascending.
        model, flag_all: at each of them.
    """

    thresholds: list[float]
    model: list[float]
    flag_all: list[float]


class ClassificationBlock(Figures):
    """One task's figures on N rows of C classes; `scoring.metrics` says how each is worked out, and where it is None.

    Attributes:
        macro_f1_interval: that of a bootstrap which resamples calls.
        per_class: by label, in the order of the classes.
        confusion: C x C counts, a row for each true class.
        log_loss, brier: of the probabilities as they are; Brier's score sums over the classes (0 to 2).
        auroc_high, auprc_high: of P(상) as a score of 상 (average precision); None where 상 or the rest has no rows.
        under_triage, over_triage: shares of the rows called less, more urgent than they are.
        quadratic_kappa_interval: of the bootstrap behind the macro-F1's.
        net_benefit: of flagging 상; None where the order of the classes has no meaning.
        expected_calibration_error: of the probabilities as they are, at `temperature`.
        expected_calibration_error_uncalibrated: of those at temperature 1; like `temperature` only known of one model's rows.
    """

    num_rows: int
    accuracy: float
    macro_f1: float
    macro_f1_interval: Interval
    per_class: dict[str, ClassFigures]
    confusion: list[list[int]]
    quadratic_kappa: float | None = None
    ordinal_mae: float | None = None
    recall_high: float | None = None
    high_called_low: float | None = None
    under_triage: float | None = None
    over_triage: float | None = None
    quadratic_kappa_interval: Interval | None = None
    auroc_high: float | None = None
    auprc_high: float | None = None
    net_benefit: NetBenefit | None = None
    log_loss: float | None = None
    brier: float | None = None
    expected_calibration_error: float
    expected_calibration_error_uncalibrated: float | None = None
    temperature: float | None = None

    @model_validator(mode="after")
    def _check_classes(self) -> Self:
        size = len(self.per_class)
        if [len(row) for row in self.confusion] != [size] * size:
            raise ValueError(f"confusion: must have a row and a column for each of the {size} classes of per_class")
        return self


def _check_tasks(tasks: dict[str, ClassificationBlock]) -> dict[str, ClassificationBlock]:
    if "urgency" not in tasks:
        raise ValueError("urgency is missing")
    if tuple(tasks["urgency"].per_class) != URGENCY_LABELS:
        raise ValueError(f"urgency.per_class: must be of {', '.join(URGENCY_LABELS)} in this order")
    return tasks


def _check_splits(splits: dict[str, TaskBlocks]) -> dict[str, TaskBlocks]:
    if "val" not in splits:
        raise ValueError("val is missing")
    return splits


TaskBlocks = Annotated[dict[str, ClassificationBlock], AfterValidator(_check_tasks)]
"""By task: urgency, and sentiment where it was learnt."""
SplitBlocks = Annotated[dict[str, TaskBlocks], AfterValidator(_check_splits)]
"""By split: val, and test once it was scored."""


class FoldScore(Figures):
    """Test macro-F1 of one fold's model."""

    num_rows: int
    macro_f1: float


class CrossValidation(Figures):
    """The score of each fold, their mean and standard deviation, and the block of all held-out rows together."""

    each: list[FoldScore]
    macro_f1_mean: float
    macro_f1_std: float
    pooled: ClassificationBlock


class AgainstBaseline(Figures):
    """Test macro-F1 of a model less that of the best baseline, with a paired bootstrap's interval.

    Attributes:
        baseline: the one of the best cross-validated score.
        verdict: `better` or `worse` where the whole interval is on that side of 0.
    """

    baseline: str
    macro_f1: float
    interval: Interval
    verdict: Literal["better", "no_better", "worse"]


class Metrics(Figures):
    """metrics.json.

    Attributes:
        warnings: rows whose call, audio or transcript is also on another side of the split, in words.
        ablation: the test urgency block of each modality's model; None where it was not asked for, as of `folds`.
        baselines: the test urgency block of the majority class and of linear models; earlier versions had none.
        against_baseline: the model beside the best of them.
        layer_weights: what each layer of the audio and the text encoder weighs in the model, by its number, where a row holds
            several.
    """

    splits: SplitBlocks
    warnings: list[str] = Field(default_factory=list)
    ablation: dict[str, ClassificationBlock] | None = None
    folds: CrossValidation | None = None
    baselines: dict[str, ClassificationBlock] | None = None
    against_baseline: AgainstBaseline | None = None
    layer_weights: dict[str, dict[str, float]] | None = None


class ThresholdFigures(Figures):
    """What calling 상 where P(상) reaches a threshold finds, and what it costs; None where a figure is not defined.

    Attributes:
        num_high: rows of 상.
        num_found: rows of 상 among the flagged.
        false_alarms_per_high: flagged rows that are not 상, for each row of 상.
    """

    num_rows: int
    num_high: int
    num_flagged: int
    num_found: int
    flagged_share: float
    recall: float | None
    precision: float | None
    false_alarms_per_high: float | None


class OperatingPoint(Figures):
    """A threshold on P(상), chosen on val for a recall of 상, and its figures by split.

    Attributes:
        recall_of_high, confidence: as asked: the least recall among new calls, and how sure to be of it.
        num_high, num_high_needed: rows of 상 in val, and how many a promise takes.
        threshold: rounded down to six digits; None where val has too few, and then there are no figures.
    """

    recall_of_high: float
    confidence: float
    num_high: int
    num_high_needed: int
    threshold: float | None
    splits: dict[str, ThresholdFigures]


class Difference(Figures):
    """Test macro-F1 of a search's winner less that of the config's own values, with a paired bootstrap's interval.

    The verdict is `better` where the whole interval is above 0, `defaults` where the winner is the config itself, else
    `not_better`; `same` and `worse` are words of earlier versions.
    """

    macro_f1: float
    interval: Interval
    verdict: Literal["better", "not_better", "defaults", "same", "worse"]


class UrgencyBlocks(Figures):
    """A model's urgency block on each split."""

    val: ClassificationBlock
    test: ClassificationBlock


Finalist = Literal["ensemble", "winner", "defaults"]


class SearchEnsemble(Figures):
    """What the mixture of a search's models came to (`tune.ensemble`).

    Attributes:
        chosen: what tune/model is: the one of the least log loss on unseen rows, where it is more than a standard error below
            that of the defaults, else these.
        shares: of each model in its probabilities, by name: winner, defaults, trial 7, linear, stacked.
        log_loss: on unseen rows, of the ensemble, the winner and the defaults; the shares were fitted without the row.
        test: its urgency block.
        against_winner, against_defaults: its test macro-F1 less theirs, with a paired bootstrap's interval.
    """

    chosen: Finalist
    shares: dict[str, float]
    log_loss: dict[Finalist, float]
    test: ClassificationBlock
    against_winner: Difference
    against_defaults: Difference


class SearchSummary(Figures):
    """tune/metrics.json.

    Attributes:
        study: the Optuna study's name.
        completed, stopped, failed: trials that ended so.
        best: the winner's value of each searched field, by dotted name.
        best_score: the validation macro-F1 that the winner was picked for.
        val, test: the urgency block of tune/model: the winner, trained again, or what `ensemble` chose.
        selection_optimism: `best_score` less the winner's macro-F1 on test.
        defaults: blocks of the config's own values; earlier versions had neither these nor the `difference`.
        against_baseline: tune/model beside the best baseline; earlier versions had none.
        ensemble: of the search's models; None where none was asked for.
        wall_sec: of the whole search, its interrupted parts included.
    """

    study: str
    num_trials: int
    completed: int
    stopped: int
    failed: int
    best_trial: int
    best: dict[str, JsonValue]
    best_score: float
    val: ClassificationBlock
    test: ClassificationBlock
    selection_optimism: float
    defaults: UrgencyBlocks | None = None
    difference: Difference | None = None
    against_baseline: AgainstBaseline | None = None
    ensemble: SearchEnsemble | None = None
    wall_sec: float
    seed: int
