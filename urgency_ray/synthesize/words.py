"""Transcripts from sentence templates: what the caller says carries the words cue, nothing else does. All is invented."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

MASK = "***[개인정보]"
"""What the provider writes in place of private words."""

SLOTS: dict[str, Sequence[str]] = {
    "family": ("어머니가", "아버지가", "할머니가", "할아버지가", "남편이", "아내가", "동생이", "아이가", "옆집 분이", "친구가"),
    "body": ("무릎", "손목", "허리", "발목", "어깨", "머리", "가슴", "옆구리"),
    "spot": ("베란다", "옥상", "주차장", "계단", "현관", "창고", "복도", "지하실", "보일러실"),
    "count": ("한", "두", "세", "네", "다섯"),
    "minutes": ("오", "십", "십오", "이십", "삼십"),
    "floor": ("일", "이", "삼", "사", "오", "칠", "십"),
}
PLACES = (
    "가람아파트 {a}동 {b}호",
    "나래동 {a}번지",
    "다솜로 {a}번길 {b}",
    "라온시장 {a}번 출구 앞",
    "마루초등학교 뒤쪽",
    "바다공원 {a}번 주차장",
    "사랑빌라 {a}동",
    "아름상가 {a}호",
)
LOCATING = (
    "여기 {place}인데요",
    "여보세요 저희가 {place}인데요",
    "119죠 {place}입니다",
    "네 {place} 쪽인데요",
    "수고하십니다 {place}인데요",
)
REPORTING = (
    "제가 신고하려는 건요",
    "그러니까 신고할 게 뭐냐면요",
    "신고 내용은 이거예요",
    "다른 게 아니라 신고할 게요",
)
"""What a caller puts before the one utterance that counts, where all others mislead."""
NEUTRAL = (
    "네 맞아요",
    "네 알겠습니다",
    "아니요 그건 잘 모르겠어요",
    "전화번호는 이 번호 맞아요",
    "{floor}층이에요",
    "제가 신고한 사람이에요",
    "{family} 같이 있어요",
    "{spot} 쪽으로 들어오시면 돼요",
    "큰길에서 들어오면 바로 보여요",
    "네 지금 앞에 나와 있어요",
    "한 {minutes} 분 전부터요",
    "저는 지나가던 사람이에요",
    "네 계속 들고 있을게요",
)
GREETINGS = ("119입니다", "네 119 상황실입니다", "119입니다 무슨 일이세요", "네 119입니다 말씀하세요")
QUESTIONS = (
    "주소가 어떻게 되세요",
    "지금 계신 곳이 어디세요",
    "의식은 있으세요",
    "숨은 쉬고 계세요",
    "다친 분이 있나요",
    "피가 많이 나나요",
    "불길이나 연기가 보이나요",
    "몇 분이 계세요",
    "언제부터 그러셨어요",
    "전화번호 확인할게요",
    "급한 상황인가요",
    "조금만 자세히 말씀해 주세요",
)
CLOSINGS = ("출동하겠습니다", "네 지금 보내 드릴게요", "네 확인했습니다", "전화 끊지 말고 기다려 주세요")

ANYWHERE: tuple[Sequence[str], ...] = (
    (
        "급한 건 아니에요",
        "천천히 오셔도 괜찮아요",
        "뭐 좀 여쭤보려고 전화했어요",
        "다친 사람은 없고요 그냥 확인만 부탁드려요",
        "시간 되실 때 한번 봐 주시면 좋겠어요",
        "어디에 물어봐야 할지 몰라서요",
    ),
    (
        "심한 건 아닌데 걱정이 돼서 전화했어요",
        "걸을 수는 있는데 많이 불편해하세요",
        "{family} {body} 쪽이 아프다고 하는데 말은 잘해요",
        "{minutes} 분쯤 지났는데 나아지지를 않아요",
        "조금 다쳤는데 병원에 가 봐야 할 것 같아요",
        "혼자서는 움직이기가 힘들어요",
    ),
    (
        "빨리 좀 와 주세요 제발요",
        "큰일 났어요 지금 당장 와야 돼요",
        "사람이 죽을 것 같아요",
        "{family} 불러도 대답이 없어요",
        "점점 더 나빠져요 어떡해요",
        "{count} 명이 크게 다쳤어요",
    ),
)
"""Caller phrases of any call, by words cue: a calm request, discomfort or a minor accident, danger to life."""

BY_KIND: dict[str, tuple[Sequence[str], ...]] = {
    "구조": (
        (
            "{spot}에 벌집이 생겼는데 떼어 주실 수 있나요",
            "문이 잠겼는데 열쇠가 안에 있어요",
            "고양이가 {spot} 위에 올라가서 못 내려와요",
            "반지가 손가락에서 안 빠져서요",
            "길에 강아지가 돌아다녀서 신고해요",
            "{spot} 간판이 조금 흔들리는 것 같아요",
            "현관 비밀번호가 안 눌러져서 들어가지를 못해요",
        ),
        (
            "엘리베이터가 멈춰서 {count} 명이 안에 있어요",
            "{family} 넘어져서 {body} 쪽을 삐었어요",
            "차가 도랑에 빠졌는데 가볍게 부딪혔어요",
            "{spot} 문에 손이 끼어서 안 빠져요",
            "산에서 내려오다가 길을 잃었어요",
            "{family} 방문이 잠겨서 못 나오고 있어요",
            "접촉 사고가 나서 {body} 쪽이 뻐근해요",
        ),
        (
            "{family} 물에 빠져서 안 보여요",
            "{count} 명이 차 밑에 깔려 있어요",
            "난간에서 뛰어내리려고 해요",
            "{spot} 벽이 무너져서 사람이 묻혔어요",
            "피를 너무 많이 흘려요 멈추지를 않아요",
            "차가 뒤집혀서 사람이 못 나와요",
            "{family} 떨어졌는데 움직이지를 않아요",
        ),
    ),
    "구급": (
        (
            "지금 문 연 약국이 어디 있나요",
            "당직 병원 번호 좀 알려 주세요",
            "내일 병원 가는 차를 예약할 수 있나요",
            "약을 두 번 먹어도 되는지 궁금해서요",
            "{family} 예방 접종 받는 곳을 찾고 있어요",
            "혈압계 숫자를 어떻게 읽는지 모르겠어요",
            "진료 기록을 어디서 떼는지 알고 싶어요",
        ),
        (
            "{family} 배가 아프고 토했어요",
            "{body} 쪽이 부어서 잘 못 움직여요",
            "열이 나고 어지럽다고 해요",
            "칼에 손을 베었는데 피는 멎었어요",
            "{family} 계단에서 미끄러져서 {body} 쪽이 아파요",
            "두드러기가 나고 가려워해요",
            "{family} 허리를 삐끗해서 누워 있어요",
        ),
        (
            "{family} 쓰러졌는데 의식이 없어요",
            "숨을 안 쉬어요 얼굴이 파래요",
            "심장이 멈춘 것 같아요",
            "경련을 계속하고 눈이 돌아갔어요",
            "목에 걸려서 숨을 못 쉬어요",
            "가슴을 쥐어뜯다가 쓰러졌어요",
            "{family} 약을 한 통 다 먹고 안 깨어나요",
        ),
    ),
    "화재": (
        (
            "화재경보기가 울리는데 오작동인 것 같아요",
            "누가 {spot} 쪽에서 낙엽을 태우는 것 같아요",
            "소화기 바꾸는 방법을 알고 싶어요",
            "탄 냄새가 아주 약하게 나서요",
            "소방 점검 날짜를 물어보려고요",
            "{spot} 스프링클러에서 물이 조금씩 새요",
            "굴뚝에서 김이 나오는데 괜찮은 건지 봐 주세요",
        ),
        (
            "냄비를 태워서 집 안에 연기가 찼어요",
            "불은 껐는데 손을 좀 데었어요",
            "쓰레기통에 작은 불이 붙었어요",
            "콘센트에서 불꽃이 튀고 꺼졌어요",
            "{spot} 쪽에서 연기가 조금 올라와요",
            "전기장판이 타서 바닥이 그을렸어요",
            "{family} 연기를 마셔서 기침을 해요",
        ),
        (
            "불길이 {spot}까지 번졌어요",
            "안에 {count} 명이 갇혀서 못 나와요",
            "연기 때문에 숨을 못 쉬겠어요",
            "펑 터지더니 불이 천장까지 올라가요",
            "{family} 아직 불 속에 있어요",
            "옆 건물로 불이 옮겨붙고 있어요",
            "문이 뜨거워서 나갈 수가 없어요 살려 주세요",
        ),
    ),
}
"""Further caller phrases, by kind of emergency and words cue."""


def write_dialogue(
    rng: np.random.Generator, words_cues: Sequence[int], kind: str, num_turns: int, report: int | None = None
) -> list[str]:
    """Texts (num_turns,) of a call, dispatcher and caller in turn; at least two caller turns speak as their cue says.

    Args:
        rng: where all draws come from.
        words_cues: words cue of each caller turn, (num_turns // 2,).
        kind: of emergency.
        num_turns: of both speakers.
        report: the caller turn that is said to be the report; None singles none out.
    """
    place = MASK if rng.random() < 0.1 else draw_place(rng)
    telling = _draw_phrases(rng, words_cues, kind)
    dispatcher = [_choose(rng, GREETINGS), *(QUESTIONS[index] for index in rng.permutation(len(QUESTIONS)))]
    texts = []
    for turn in range(num_turns):
        caller_turn = turn // 2
        if turn % 2 == 0:
            template = _choose(rng, CLOSINGS) if turn == num_turns - 1 else dispatcher[caller_turn]
        elif caller_turn == report:
            template = f"{_choose(rng, REPORTING)} {telling[caller_turn]}"
        elif caller_turn == 0:
            template = f"{_choose(rng, LOCATING)} {telling[0]}"
        elif caller_turn > 1 and rng.random() < 0.3:
            template = _choose(rng, NEUTRAL)
        else:
            template = " ".join([_choose(rng, NEUTRAL)] * int(rng.random() < 0.4) + [telling[caller_turn]])
        texts.append(template.format(place=place, **{slot: _choose(rng, values) for slot, values in SLOTS.items()}))
    return texts


def _draw_phrases(rng: np.random.Generator, words_cues: Sequence[int], kind: str) -> list[str]:
    """A phrase for each words cue (num_caller_turns,), none of them twice in a call."""
    pools = {cue: (*ANYWHERE[cue], *BY_KIND[kind][cue]) for cue in sorted(set(words_cues))}
    orders = {cue: rng.permutation(len(pool)) for cue, pool in pools.items()}
    return [pools[cue][orders[cue][turn]] for turn, cue in enumerate(words_cues)]


def draw_place(rng: np.random.Generator) -> str:
    """A place that does not exist."""
    return _choose(rng, PLACES).format(a=rng.integers(1, 130), b=rng.integers(1, 60))


def _choose(rng: np.random.Generator, values: Sequence[str]) -> str:
    # Generator.choice would turn the strings into an array first, which takes longer than the sound of a syllable.
    return values[int(rng.integers(len(values)))]
