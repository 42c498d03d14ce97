"""Label files: what the provider writes is read, all else is rejected with a reason that quotes no transcript."""

import json
import math
import tracemalloc
from typing import Any
from unicodedata import normalize

import hypothesis
import hypothesis.strategies as st
import pyarrow as pa
import pytest

from urgency_ray.calls.label import Utterance, parse_label
from urgency_ray.errors import Reason, Reject

SECRET = "광주광역시 북구 용봉동 12번지"


def label(**changes: object) -> bytes:
    utterance = {"id": "6ef6", "startAt": 300, "endAt": 1826, "text": "불이 났어요", "speaker": 1}
    tree = {
        "_id": "x",
        "startAt": 0,
        "endAt": None,
        "utterances": [utterance],
        "address": SECRET,
        "disasterLarge": "구조",
        "disasterMedium": "안전사고",
        "urgencyLevel": "상",
        "sentiment": "불안/걱정",
        "symptom": [],
    }
    return json.dumps(tree | changes, ensure_ascii=False).encode()


def turn(**changes: object) -> bytes:
    return label(utterances=[{"id": "a", "startAt": 0, "endAt": 9, "text": SECRET, "speaker": 1} | changes])


def rejected(content: bytes, require_urgency: bool = True) -> Reject:
    with pytest.raises(Reject) as caught:
        parse_label(content, require_urgency)
    assert SECRET[:5] not in caught.value.detail
    return caught.value


def test_a_label_as_the_provider_writes_it() -> None:
    parsed = parse_label(label(), True)
    assert parsed.utterances == (Utterance("6ef6", 300, 1826, "불이 났어요", 1),)
    assert (parsed.urgency, parsed.sentiment) == (2, "불안/걱정")
    assert (parsed.disaster_large, parsed.disaster_medium) == ("구조", "안전사고")


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbf" + label(), label(endAt=18059.5), label(triage="응급증상"), label(startAt="?")]
)
def test_a_bom_and_the_times_of_the_call_do_not_matter(content: Any) -> None:
    assert parse_label(content, True) == parse_label(label(), True)


@pytest.mark.parametrize(("level", "index"), [("하", 0), ("중", 1), ("상", 2), (normalize("NFD", "상"), 2), (" 중\n", 1)])
def test_urgency_is_its_place_in_the_order_of_the_levels(level: Any, index: int) -> None:
    assert parse_label(label(urgencyLevel=level), True).urgency == index


def test_no_urgency_is_a_reject_only_where_it_is_required() -> None:
    without = json.dumps({key: value for key, value in json.loads(label()).items() if key != "urgencyLevel"}).encode()
    for content in (without, label(urgencyLevel=None)):
        assert rejected(content).reason == Reason.MISSING_URGENCY
        assert parse_label(content, False).urgency is None


@pytest.mark.parametrize("level", ["", "  "])
def test_a_blank_urgency_is_a_missing_one(level: str) -> None:
    assert rejected(label(urgencyLevel=level)).reason == Reason.MISSING_URGENCY
    assert parse_label(label(urgencyLevel=level), False).urgency is None


@pytest.mark.parametrize("require_urgency", [True, False])
@pytest.mark.parametrize("level", ["최상", 2, True, ["상"], {"상": 1}, math.nan, SECRET * 9])
def test_an_urgency_outside_the_levels_is_never_guessed(level: Any, require_urgency: bool) -> None:
    assert rejected(label(urgencyLevel=level), require_urgency).reason == Reason.UNKNOWN_URGENCY


def test_a_short_unknown_urgency_is_quoted_and_a_long_one_is_not() -> None:
    assert "'최상'" in rejected(label(urgencyLevel="최상")).detail
    assert len(rejected(label(urgencyLevel="긴급" * 50)).detail) < 80


@pytest.mark.parametrize(("given", "taken"), [(1500, 1500), (1500.0, 1500), (1500.4, 1500), (-20, -20)])
def test_times_may_be_floats(given: float, taken: int) -> None:
    assert parse_label(turn(startAt=given), True).utterances[0].start_ms == taken


def test_missing_ids_are_the_index_and_a_speaker_may_be_unknown() -> None:
    turns = [{"startAt": 0, "endAt": 9, "text": "", "id": None}, {"startAt": 0, "endAt": 9, "text": "", "speaker": None}]
    parsed = parse_label(label(utterances=turns), True)
    assert [(utterance.id, utterance.speaker) for utterance in parsed.utterances] == [("0", None), ("1", None)]


def test_names_are_composed_and_blank_ones_null() -> None:
    parsed = parse_label(label(sentiment=normalize("NFD", " 중립 "), disasterLarge=" ", disasterMedium=None), True)
    assert (parsed.sentiment, parsed.disaster_large, parsed.disaster_medium) == ("중립", None, None)


def test_no_utterances_are_for_the_transcript_to_reject() -> None:
    assert parse_label(label(utterances=[]), True).utterances == ()


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (turn(startAt="0"), "utterances[0].startAt: must be a valid number"),
        (turn(startAt=True), "utterances[0].startAt: "),
        (turn(startAt=None), "utterances[0].startAt: "),
        (turn(endAt=math.nan), "utterances[0].endAt: must be a finite number"),
        (turn(endAt=-math.inf), "utterances[0].endAt: "),
        (turn(endAt=10**400), "utterances[0].endAt: "),
        (turn(endAt=2**60), "utterances[0].endAt: "),
        (turn(text=None), "utterances[0].text: "),
        (turn(text=[SECRET]), "utterances[0].text: "),
        (turn(id=7), "utterances[0].id: "),
        (turn(speaker="1"), "utterances[0].speaker: "),
        (turn(speaker=SECRET), "utterances[0].speaker: "),
        (turn(speaker=128), "utterances[0].speaker: "),
        (turn(speaker=False), "utterances[0].speaker: "),
        (label(utterances=[{}]), "utterances[0].startAt: must be given"),
        (label(utterances=[SECRET]), "utterances[0]: must be an object"),
        (label(utterances={"0": SECRET}), "utterances: "),
        (label(utterances=None), "utterances: "),
        (label(sentiment=[SECRET]), "sentiment: "),
        (label(disasterMedium=3), "disasterMedium: "),
        (b"[]", "the label: must be an object"),
        (b"null", "the label: "),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not(content: Any, field: str) -> None:
    reject = rejected(content)
    assert reject.reason == Reason.INVALID_LABEL
    assert reject.detail.startswith(field)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        label()[:-30],
        label() + b"}",
        label().decode().encode("cp949"),
        label().decode().encode("utf-16"),
        label().replace("불".encode(), b"\xed\xa0\x80"),
        label().replace("불".encode(), b"\\ud800"),
        b"[" * 100_000,
        b'{"utterances": [{"startAt": ' + b"9" * 10_000 + b"}]}",
        f'{{"address": "{SECRET}'.encode(),
        f'{{"address": {SECRET}}}'.encode(),
    ],
)
def test_what_is_not_json_in_utf8_is_told_by_line_and_column(content: Any) -> None:
    reject = rejected(content)
    assert reject.reason == Reason.INVALID_JSON
    assert reject.detail.startswith("line 1 column ")


def test_the_line_of_a_fault_is_counted() -> None:
    assert rejected(b'{"utterances":\n[],\n"a" 1}').detail.startswith("line 3 column ")


def test_a_million_faults_cost_as_little_as_one() -> None:
    tracemalloc.start()
    assert rejected(b'{"utterances": [' + b"5," * 1_000_000 + b"5]}").reason == Reason.INVALID_LABEL
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50 << 20


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
TREES = st.fixed_dictionaries(
    {},
    optional={
        "utterances": JSON
        | st.lists(
            st.fixed_dictionaries({}, optional=dict.fromkeys(("id", "startAt", "endAt", "text", "speaker"), JSON)), max_size=3
        ),
        "urgencyLevel": JSON | st.just("상"),
        "sentiment": JSON,
        "disasterLarge": JSON,
    },
)


@hypothesis.settings(max_examples=400, deadline=None)
@hypothesis.given(
    content=st.one_of(
        st.binary(max_size=200),
        TREES.map(lambda tree: json.dumps(tree).encode()),
        st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=3)).map(
            lambda edit: label()[: edit[0]] + edit[1] + label()[edit[0] + len(edit[1]) :]
        ),
    ),
    require_urgency=st.booleans(),
)
def test_any_bytes_are_a_label_or_are_rejected(content: Any, require_urgency: Any) -> None:
    try:
        parsed = parse_label(content, require_urgency)
    except Reject:
        return
    assert parsed.urgency in ((0, 1, 2) if require_urgency else (0, 1, 2, None))
    pa.array([utterance.text for utterance in parsed.utterances], pa.string())
    pa.array([time for utterance in parsed.utterances for time in (utterance.start_ms, utterance.end_ms)], pa.int64())
    pa.array([utterance.speaker for utterance in parsed.utterances], pa.int8())


# --- real calls
