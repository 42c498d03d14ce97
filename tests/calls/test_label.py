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


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp949"])
def test_other_encodings_are_told_and_read(encoding: str) -> None:
    assert parse_label(label().decode().encode(encoding), True) == parse_label(label(), True)


def test_damage_is_named_in_any_encoding_and_never_read_as_another() -> None:
    assert rejected(label().decode().encode("utf-16")[:-1]).detail == "UTF-16 that is damaged, or cut off"
    assert rejected(label().decode().encode("utf-16-le")[:-31]).reason == Reason.INVALID_JSON
    mixed = label()[:-1] + b', "symptom": "' + "서울".encode("cp949") + b'"}'
    assert rejected(mixed).detail.endswith("neither UTF-8 nor another encoding that is read (UTF-16, cp949)")


@pytest.mark.parametrize(
    "content",
    [
        b"[" + label() + b"]",
        b'{"data": ' + label() + b"}",
        label() + b"\0\0",
        label().replace("불이 ".encode(), "불이\t".encode()),
        b"[\n" + label().replace("불이 ".encode(), "불이\t".encode()) + b"\n]",
    ],
)
def test_one_label_may_be_in_a_list_or_an_object_or_have_raw_control_characters(content: Any) -> None:
    words = [utterance.text.split() for utterance in parse_label(content, True).utterances]
    assert words == [["불이", "났어요"]]


@pytest.mark.parametrize("shape", [b"%s", b"[%s]", b'{"data": %s}'])
def test_a_field_that_is_there_twice_is_never_guessed(shape: bytes) -> None:
    twice = shape % (label()[:-1] + ', "urgencyLevel": "하"}'.encode())
    assert rejected(twice).detail == "urgencyLevel: given more than once"
    inside = shape % label(history=[{"urgencyLevel": "하"}, {"urgencyLevel": "하"}], address='"urgencyLevel"')
    assert parse_label(inside, True).urgency == 2


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


@pytest.mark.parametrize("level", ["최상", 2, True, ["상"], {"상": 1}, math.nan, SECRET * 9])
def test_an_urgency_outside_the_levels_is_never_guessed_and_no_fault_of_a_new_call(level: Any) -> None:
    assert rejected(label(urgencyLevel=level)).reason == Reason.UNKNOWN_URGENCY
    assert parse_label(label(urgencyLevel=level), False).urgency is None


def test_a_short_unknown_urgency_is_quoted_and_a_long_one_is_not() -> None:
    assert "'최상'" in rejected(label(urgencyLevel="최상")).detail
    assert len(rejected(label(urgencyLevel="긴급" * 50)).detail) < 80


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        *((1500, 1500), (1500.0, 1500), (1500.4, 1500), (-20, -20), ("1500", 1500), (" 1.5e3 ", 1500)),
        *((None, None), ("", None), ("00:01:02", None), ("9" * 99, None)),
    ],
)
def test_times_are_numbers_also_in_quotes_or_none(given: Any, taken: int | None) -> None:
    utterance = parse_label(turn(startAt=given, endAt=given), True).utterances[0]
    assert (utterance.start_ms, utterance.end_ms) == (taken, taken)


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (0, 0),
        (1.0, 1),
        ("1", 1),
        (" 2 ", 2),
        (127, 127),
        (None, None),
        ("", None),
        ("신고자", None),
        (-1, None),
        ("1.0", 1),
        ("1.5", None),
        ("nan", None),
    ],
)
def test_speakers_are_small_numbers_or_unknown(given: Any, taken: int | None) -> None:
    assert parse_label(turn(speaker=given), True).utterances[0].speaker == taken


@pytest.mark.parametrize(
    ("given", "taken"),
    [("a", "a"), (7, "7"), (7.0, "7"), (0, "0"), (None, "0"), ("", "0"), ([7], "0"), (True, "0"), (10**400, "0")],
)
def test_ids_are_texts_or_numbers_or_the_index(given: Any, taken: str) -> None:
    assert parse_label(turn(id=given), True).utterances[0].id == taken


@pytest.mark.parametrize(("given", "taken"), [("네", "네"), (None, ""), (119, "119"), (3.5, "3.5")])
def test_texts_may_be_null_or_numbers(given: Any, taken: str) -> None:
    assert parse_label(turn(text=given), True).utterances[0].text == taken


def test_a_turn_needs_its_text_alone_and_the_call_one_turn_with_a_text() -> None:
    parsed = parse_label(label(utterances=[{"text": "불이 났어요"}, {}]), True)
    assert parsed.utterances == (Utterance("0", None, None, "불이 났어요", None), Utterance("1", None, None, "", None))
    reject = rejected(label(utterances=[{"startAt": 0, "endAt": 9, "sentence": SECRET}]))
    assert (reject.reason, reject.detail) == (Reason.INVALID_LABEL, "utterances[0].text: must be given")


def order_of(*starts: Any) -> str:
    turns = [{"id": str(index), "text": "네", "startAt": start, "endAt": 9000} for index, start in enumerate(starts)]
    return "".join(utterance.id for utterance in parse_label(label(utterances=turns), True).utterances)


def test_turns_are_in_the_order_of_their_starts() -> None:
    assert order_of(2000, 0, 1000) == "120"
    assert order_of(0, 500, 500, 400) == "0312"  # overlaps and ties stay as they are
    assert order_of(0.2, 0.1, 0.3) == "102"  # of less than a millisecond, too
    assert order_of(None, None, None) == "012"
    assert order_of(None, 2000, None, 1000) == "0312"  # behind that before it in the file


def test_a_list_of_one_name_is_that_name_and_a_number_its_digits() -> None:
    parsed = parse_label(label(sentiment=["중립"], disasterLarge=3, disasterMedium=[None]), True)
    assert (parsed.sentiment, parsed.disaster_large, parsed.disaster_medium) == ("중립", "3", None)
    parsed = parse_label(label(sentiment=["중립", "불안/걱정"], disasterLarge=[], disasterMedium=["", 4]), True)
    assert (parsed.sentiment, parsed.disaster_large, parsed.disaster_medium) == ("중립, 불안/걱정", None, "4")


def test_names_are_composed_and_blank_ones_null() -> None:
    parsed = parse_label(label(sentiment=normalize("NFD", " 중립 "), disasterLarge=" ", disasterMedium=None), True)
    assert (parsed.sentiment, parsed.disaster_large, parsed.disaster_medium) == ("중립", None, None)


def test_no_utterances_are_for_the_transcript_to_reject() -> None:
    assert parse_label(label(utterances=[]), True).utterances == ()


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (turn(startAt=True), "utterances[0].startAt: must be a valid number"),
        (turn(startAt=[SECRET]), "utterances[0].startAt: must be a valid number"),
        (turn(endAt=math.nan), "utterances[0].endAt: must be a finite number"),
        (turn(endAt="nan"), "utterances[0].endAt: must be a finite number"),
        (turn(endAt=-math.inf), "utterances[0].endAt: "),
        (turn(endAt=10**400), "utterances[0].endAt: "),
        (turn(endAt=2**60), "utterances[0].endAt: "),
        (turn(text=[SECRET]), "utterances[0].text: must be a text"),
        (turn(text=True), "utterances[0].text: "),
        (turn(text=10**400), "utterances[0].text: "),
        (turn(speaker=128), "utterances[0].speaker: must be a whole number from 0 to 127"),
        (turn(speaker=0.5), "utterances[0].speaker: "),
        (turn(speaker=math.nan), "utterances[0].speaker: "),
        (turn(speaker=False), "utterances[0].speaker: "),
        (turn(speaker=[SECRET]), "utterances[0].speaker: "),
        (label(utterances=[{}]), "utterances[0].text: must be given"),
        (label(utterances=[SECRET]), "utterances[0]: must be an object"),
        (label(utterances={"0": SECRET}), "utterances: "),
        (label(utterances=None), "utterances: "),
        (label(sentiment=[[SECRET]]), "sentiment: must be a text"),
        (label(disasterMedium={"a": 3}), "disasterMedium: "),
        (b"[]", "the label: must be an object"),
        (b"null", "the label: "),
        (b"{}", "utterances: must be given"),
        (b'{"data": {"a": 1}}', "utterances: must be given"),
        (b'[{"utterances": [{"text": "a"}, 5]}]', "utterances[1]: must be an object"),
        (b'{"utterances": [{"text": ""}' + b",{}" * 72_000 + b"]}", "utterances: must have at most 72000 items"),
        (b"[" + label() + b"," + label() + b"]", "the label: a list of several; one JSON file for each call is read"),
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
        label() + b" " + label(),
        b'{"utterances": [], "address": "' + SECRET.encode() + "서울".encode("cp949") + b'"}',
        label().replace("불".encode(), b"\xed\xa0\x80"),
        label().replace("불".encode(), b"\\ud800"),
        label().replace("불이".encode(), "불이".encode("iso2022_kr")),
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


@pytest.mark.parametrize(
    "content",
    [
        b'{"urgencyLevel": "\xec\x83\x81"}',
        b'{"urgencyLevel": "\xec\x83\x81", "utterances": null}',
        b'{"urgencyLevel": "\xec\x83\x81", "utterances": []}',
        b'{"urgencyLevel": "\xec\x83\x81", "utterances": [{"startAt": 0, "endAt": 900}]}',
        b'[{"urgencyLevel": "\xec\x83\x81", "utterances": [{}]}]',
    ],
)
def test_where_no_words_are_needed_a_label_may_have_none(content: bytes) -> None:
    label = parse_label(content, True, require_text=False)
    assert label.urgency == 2
    assert all(utterance.text == "" for utterance in label.utterances)


@pytest.mark.parametrize("content", [b"{}", b'{"a": 1}', b'{"utterances": null}x', b"[]", b'"utterances"'])
def test_what_is_no_label_is_none_either_way(content: bytes) -> None:
    for require_text in (True, False):
        with pytest.raises(Reject) as caught:
            parse_label(content, False, require_text=require_text)
        assert caught.value.reason in (Reason.INVALID_LABEL, Reason.INVALID_JSON)


def test_a_field_that_is_given_twice_is_refused_where_there_are_no_words_too() -> None:
    content = '{"urgencyLevel": "상", "urgencyLevel": "하", "utterances": []}'.encode()
    with pytest.raises(Reject, match="given more than once"):
        parse_label(content, True, require_text=False)
