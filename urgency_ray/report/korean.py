"""The words of the pages in Korean, by the English that stands in templates, charts and `words`."""

from __future__ import annotations

from urgency_ray.errors import Reason

_COMPARE = {
    "runs side by side": "실행 비교",
    "Runs side by side": "실행 비교",
    "Every figure below is of the test calls that all of these runs have; each run is compared with the first, "
    "<b>%(first)s</b>.": (
        "아래의 모든 수치는 이 실행들에 모두 있는 테스트 통화로 계산했습니다. 각 실행은 첫 실행 <b>%(first)s</b>과(와) "
        "비교합니다."
    ),
    "Figures": "수치",
    "Settings that differ": "다른 설정",
    "Curves": "곡선",
    "Disagreements": "엇갈린 통화",
    "Figures on the common test calls": "공통 테스트 통화의 수치",
    "A difference is a run’s figure less that of the first, with the 95 %% interval of a paired bootstrap: both classify the "
    "same resampled calls, so it is narrower than the intervals of the two figures suggest. In bold: beyond noise.": (
        "차이는 해당 실행의 수치에서 첫 실행의 수치를 뺀 값이며, 괄호 안은 대응 부트스트랩의 95 %% 신뢰구간입니다. 두 모델이 "
        "같은 재표본 통화를 분류하므로 두 수치의 구간에서 짐작하는 것보다 좁습니다. 굵은 글씨는 잡음을 넘는 차이입니다."
    ),
    "Test calls": "테스트 통화",
    "with a label": "레이블이 있는 통화",
    "common to all": "모두에 공통",
    "in this test alone": "이 실행의 테스트에만 있음",
    "in train or val of another": "다른 실행의 학습·검증에 쓰임",
    "%(number)s more are in all tests, but with another label in one of them: they are left out.": (
        "이 밖에 %(number)s건은 모든 테스트에 있지만 레이블이 서로 달라 제외했습니다."
    ),
    "Figure": "수치",
    "What it says": "뜻",
    "%(number)s calls": "통화 %(number)s건",
    "Whoever picks the best of several runs by these figures has made the test part of the choice: its figure here is then "
    "too good, the more so the more runs there are. Confirm it on calls that none of them has seen.": (
        "여러 실행 가운데 가장 좋은 것을 이 수치로 고르면 테스트가 선택에 쓰인 것입니다. 그 실행의 수치는 실제보다 좋게 "
        "나오며, 실행이 많을수록 더 그렇습니다. 어느 실행도 보지 못한 통화로 다시 확인하세요."
    ),
    "Of <code>config.yaml</code>, those that decide an embedding or a trained weight, and whose calls they are.": (
        "<code>config.yaml</code> 가운데 임베딩이나 학습된 가중치를 정하는 항목, 그리고 어느 통화인지를 정하는 항목입니다."
    ),
    "Field": "항목",
    "None.": "없습니다.",
    "Validation curves": "검증 곡선",
    "Each run has its own validation rows, and may pick its best epoch by another figure: the curves say how the trainings "
    "went, not which model is better.": (
        "실행마다 검증 행이 다르고 최적 에포크를 고르는 기준도 다를 수 있습니다. 곡선은 학습이 어떻게 진행되었는지를 보여 줄 "
        "뿐, 어느 모델이 나은지를 말하지는 않습니다."
    ),
    "Validation loss": "검증 손실",
    "Higher is better. A thin line is a member of an ensemble.": "높을수록 좋습니다. 가는 선은 앙상블의 구성 모델입니다.",
    "Mean negative log-likelihood of urgency, lower is better; rising again, it is overfitting.": (
        "긴급도의 평균 음의 로그 가능도로, 낮을수록 좋습니다. 다시 올라가면 과적합입니다."
    ),
    "No history.json, or none of an epoch:": "history.json이 없거나 에포크가 없는 실행:",
    "Where they disagree": "엇갈린 통화",
    "%(apart)s of the %(common)s common calls are not called the same by all.": (
        "공통 통화 %(common)s건 가운데 %(apart)s건에서 예측이 서로 다릅니다."
    ),
    "Of these": "이 통화들 가운데",
    "right": "맞음",
    "Call": "통화",
    "True": "정답",
    "The first %(shown)s of %(all)s.": "전체 %(all)s건 가운데 앞의 %(shown)s건입니다.",
    "Those come first in which two runs are surest of different classes. ✓: right. Where all runs are sure and wrong alike, "
    "look at the label.": (
        "두 실행이 서로 다른 등급을 가장 확신하는 통화부터 보여 줍니다. ✓는 맞은 예측입니다. 모두가 확신하면서 틀렸다면 "
        "레이블을 확인하세요."
    ),
    "urgency_ray %(version)s. Ids, figures and settings: this page holds no transcript and no address.": (
        "urgency_ray %(version)s. 식별자, 수치, 설정만 있습니다. 전사문과 주소는 들어 있지 않습니다."
    ),
    "elsewhere": "다른 위치",
    "%(value)s (%(low)s to %(high)s)": "%(value)s (%(low)s ~ %(high)s)",
    "Validation macro-F1 by epoch of each run": "실행별 에포크에 따른 검증 macro-F1",
    "Validation loss by epoch of each run": "실행별 에포크에 따른 검증 손실",
    "loss, validation": "손실 (검증)",
    "%(difference)s macro-F1, %(around)s": "macro-F1 %(difference)s, %(around)s",
    "%(name)s is no better beyond noise than %(first)s: %(figures)s.": (
        "%(name)s: %(first)s보다 잡음 이상으로 낫지 않습니다 (%(figures)s)."
    ),
    "%(name)s is better beyond noise than %(first)s: %(figures)s.": (
        "%(name)s: %(first)s보다 잡음 이상으로 낫습니다 (%(figures)s)."
    ),
    "%(name)s is worse beyond noise than %(first)s: %(figures)s.": (
        "%(name)s: %(first)s보다 잡음 이상으로 못합니다 (%(figures)s)."
    ),
}

_HEADER = {
    "%(name)s · urgency_ray report": "%(name)s · urgency_ray 보고서",
    "Urgency of emergency calls: %(name)s": "119 신고 전화의 긴급도: %(name)s",
    "utterances": "발화",
    "calls": "통화",
    ", made by <code>%(audio)s</code> and <code>%(text)s</code>": " (인코더 <code>%(audio)s</code>, <code>%(text)s</code>)",
    ", a call out of all of its own": ", 통화마다 모든 발화를 모아 판단",
    "Ensemble around the classifier": "분류기를 중심으로 한 앙상블:",
    "Classifier": "분류기:",
    "audio": "음성",
    "text": "텍스트",
    "fused": "융합",
    "audio and text": "음성·텍스트",
    "with <code>%(encoder)s</code>, trained on the transcripts,": "+ 전사문으로 학습한 <code>%(encoder)s</code>",
    "%(what)s <code>%(model)s</code>%(trained)s on %(inputs)s embeddings of %(rows)s%(by_all)s%(made_by)s.": (
        "%(what)s <code>%(model)s</code>%(trained)s. 입력은 %(rows)s의 %(inputs)s 임베딩%(made_by)s%(by_all)s."
    ),
    "Audio and text embeddings of %(rows)s%(by_all)s%(made_by)s.": "%(rows)s의 음성·텍스트 임베딩%(made_by)s%(by_all)s.",
    'Urgency in three ordered classes: <i class="dot c0"></i>하 low, <i class="dot c1"></i>중 mid, <i class="dot c2"></i>상 '
    "high.": (
        '긴급도는 순서가 있는 세 등급입니다: <i class="dot c0"></i>하 &lt; <i class="dot c1"></i>중 &lt; <i class="dot '
        'c2"></i>상.'
    ),
    "Result": "결과",
    "Costly errors": "치명적 오류",
    "Where it is worse": "약한 곳",
    "Modalities": "모달리티",
    "Calibration": "확률 보정",
    "Benefit": "순편익",
    "Training": "학습",
    "Tuning": "탐색",
    "Data": "데이터",
    "Settings": "설정",
    "%(optimism)s of selection optimism": "선택에 따른 낙관 편향 %(optimism)s",
    "no sign of selection optimism": "선택에 따른 낙관 편향의 징후 없음",
    "The best trial was picked for a macro-F1 of %(picked_for)s on validation%(several)s, and has %(tested)s on test: "
    "%(optimism)s.": (
        "가장 좋은 트라이얼은 검증 macro-F1 %(picked_for)s%(several)s로 뽑혔고 테스트에서는 %(tested)s입니다: %(optimism)s."
    ),
    "It was picked for a macro-F1 of %(picked_for)s on validation%(several)s, and has %(tested)s on test: %(optimism)s.": (
        "검증 macro-F1 %(picked_for)s%(several)s로 뽑혔고 테스트에서는 %(tested)s입니다: %(optimism)s."
    ),
    "Macro-F1, %(split)s": "Macro-F1 (%(split)s)",
    "95 %% interval %(interval)s, n = %(rows)s": "95 %% 신뢰구간 %(interval)s, n = %(rows)s",
    "Recall of 상, %(split)s": "상 재현율 (%(split)s)",
    "%(found)s of %(all)s found": "%(all)s건 가운데 %(found)s건을 찾음",
    "상 called 하, %(split)s": "상을 하로 판정 (%(split)s)",
    "%(lost)s of %(all)s: the costly error": "%(all)s건 가운데 %(lost)s건: 가장 치명적인 오류",
    "Calibration error, %(split)s": "보정 오차 (%(split)s)",
    "mean gap of confidence and share right": "확신도와 정답률의 평균 차이",
    "test": "테스트",
    "val": "검증",
    "training": "Training",
    "validation": "Validation",
    "the trial picked; 95 %% interval %(interval)s, n = %(rows)s": "뽑힌 트라이얼, 95 %% 신뢰구간 %(interval)s, n = %(rows)s",
    "the trial picked: the costly error": "뽑힌 트라이얼: 가장 치명적인 오류",
    "Trials": "트라이얼",
    "%(completed)s completed, %(stopped)s stopped, %(failed)s failed": (
        "완료 %(completed)s, 조기 중단 %(stopped)s, 실패 %(failed)s"
    ),
    "Calls embedded": "임베딩된 통화",
    "of %(read)s read, %(rejected)s rejected": "읽은 통화 %(read)s건, 거부 %(rejected)s건",
    "Calls rejected": "거부된 통화",
    "%(share)s of the calls read": "읽은 통화의 %(share)s",
    "Audio": "음성",
    "embedded in %(time)s": "임베딩에 %(time)s",
    "<strong>Too good to be taken as it is.</strong> A test macro-F1 above 0.70 on real calls is more likely a leak than a "
    "success. Before it is believed: is a call, or are two calls with the same audio, on both sides of the split? Was "
    "anything chosen, standardised or resampled with the test rows?": (
        "<strong>그대로 믿기에는 너무 좋습니다.</strong> 실제 통화에서 테스트 macro-F1이 0.70을 넘으면 성공보다 누출일 "
        "가능성이 큽니다. 믿기 전에 확인하세요. 한 통화나 음성이 같은 두 통화가 분할의 양쪽에 있지는 않습니까? 테스트 행으로 "
        "무언가를 고르거나 표준화하거나 재표집하지는 않았습니까?"
    ),
    "Warning of the training.": "학습 경고.",
    "<strong>The calls do not add up.</strong> %(embedded)s embedded and %(rejected)s rejected are not %(read)s read.": (
        "<strong>통화 수가 맞지 않습니다.</strong> 임베딩 %(embedded)s건과 거부 %(rejected)s건의 합이 읽은 %(read)s건과 "
        "다릅니다."
    ),
    "<strong>The files do not add up.</strong> %(read)s read and %(not_read)s not read are not %(seen)s seen.": (
        "<strong>파일 수가 맞지 않습니다.</strong> 읽은 %(read)s개와 읽지 않은 %(not_read)s개의 합이 발견한 %(seen)s개와 "
        "다릅니다."
    ),
    "<strong>Two different runs.</strong> <code>predictions.parquet</code> holds %(held)s labelled test rows, "
    "<code>metrics.json</code> speaks of %(said)s: one of them is older.": (
        "<strong>서로 다른 두 실행입니다.</strong> <code>predictions.parquet</code>의 레이블 있는 테스트 행은 %(held)s개인데 "
        "<code>metrics.json</code>은 %(said)s개라고 합니다. 둘 중 하나가 더 오래된 파일입니다."
    ),
}

_RESULT = {
    "Rows": "행",
    "labelled rows of the split": "그 분할에서 레이블이 있는 행",
    "Class, %(split)s": "등급 (%(split)s)",
    "Precision": "정밀도",
    "Recall": "재현율",
    "%(split)s: true ↓, called →": "%(split)s: 정답 ↓, 예측 →",
    "Count": "건수",
    "What it means": "뜻",
    "An ensemble of models for %(folds)s folds: each row of validation, all that is not test, is judged by the members that "
    "have not seen it. The test split was scored once, by all of them.": (
        "폴드 %(folds)s개로 학습한 모델의 앙상블입니다. 검증 행, 곧 테스트가 아닌 모든 행은 그 행을 보지 못한 구성 모델이 "
        "판정합니다. 테스트는 모든 구성 모델로 한 번만 평가했습니다."
    ),
    "The validation split picked the best epoch, so its figures flatter. The test split was scored once, with that epoch’s "
    "weights.": (
        "검증 분할로 최적 에포크를 골랐으므로 검증 수치는 실제보다 좋게 나옵니다. 테스트는 그 에포크의 가중치로 한 번만 "
        "평가했습니다."
    ),
    "Under the macro-F1: its 95 %% interval, from a bootstrap that resamples whole calls.": (
        "macro-F1 아래는 통화 단위로 재표집하는 부트스트랩의 95 %% 신뢰구간입니다."
    ),
    "Cross-validated over %(number)s folds of whole calls: macro-F1 %(mean)s ± %(std)s (standard deviation of the folds), "
    "%(pooled)s (%(interval)s) on their %(rows)s held-out rows together.": (
        "통화 단위 %(number)s겹 교차 검증: macro-F1 %(mean)s ± %(std)s (폴드의 표준편차), 떼어 둔 %(rows)s행을 모두 합치면 "
        "%(pooled)s (%(interval)s)."
    ),
    "Beside simple baselines, on the same test rows": "같은 테스트 행에서 단순 기준선과 비교",
    "Baseline": "기준선",
    "Macro-F1": "Macro-F1",
    "Accuracy": "정확도",
    "Recall of 상": "상 재현율",
    "상 called 하": "상을 하로 판정",
    "the best by cross-validation": "교차 검증에서 가장 좋음",
    "majority": "최빈 등급",
    "linear, audio": "선형, 음성",
    "linear, text": "선형, 텍스트",
    "linear, fused": "선형, 융합",
    "Majority calls every row the commonest class; linear is a logistic regression on the standardised embeddings, its "
    "penalty chosen by cross-validation.": (
        "최빈 등급은 모든 행을 가장 흔한 등급으로 판정합니다. 선형은 표준화한 임베딩의 로지스틱 회귀이며 벌점은 교차 검증으로 "
        "정합니다."
    ),
    "%(difference)s macro-F1 on test, %(around)s": "테스트 macro-F1 %(difference)s, %(around)s",
    "No better beyond noise than the best baseline, %(name)s: %(figures)s.": (
        "가장 좋은 기준선(%(name)s)보다 잡음 이상으로 낫지 않습니다: %(figures)s."
    ),
    "Better beyond noise than the best baseline, %(name)s: %(figures)s.": (
        "가장 좋은 기준선(%(name)s)보다 잡음 이상으로 낫습니다: %(figures)s."
    ),
    "Worse beyond noise than the best baseline, %(name)s: %(figures)s.": (
        "가장 좋은 기준선(%(name)s)보다 잡음 이상으로 못합니다: %(figures)s."
    ),
    "What each layer of the %(modality)s encoder weighs": "%(modality)s 인코더 층별 가중치",
    "Layer": "층",
    "Weight": "가중치",
    "Layer 0 is what goes into the first layer.": "층 0은 첫 층의 입력입니다.",
    "The mean over the members, as much as each counts: a linear member takes all layers evenly.": (
        "구성 모델의 비중으로 가중한 평균입니다. 선형 모델은 모든 층을 고르게 씁니다."
    ),
    "The weights sum to 1.": "가중치의 합은 1입니다.",
    "Confusion": "혼동 행렬",
    "A line is what the %(rows)s are, a column what they were called; a cell holds the count and its share of the line, and "
    "is deeper the larger the share. Outlined: 상 called 하, the costly error.": (
        "행은 %(rows)s의 정답, 열은 예측입니다. 칸에는 건수와 그 행에서 차지하는 비율이 있고 비율이 클수록 짙습니다. 테두리를 "
        "두른 칸은 상을 하로 판정한, 가장 치명적인 오류입니다."
    ),
    "Second task: the caller’s sentiment": "두 번째 과제: 신고자의 감정",
    "The costliest errors: 상 called 하": "가장 치명적인 오류: 상을 하로 판정한 통화",
    "Test %(rows)s of the highest class that were taken for the lowest, those first of which the classifier is surest. Listen "
    "to them, and look at their labels.": (
        "가장 높은 등급인데 가장 낮은 등급으로 판정된 테스트 %(rows)s입니다. 분류기가 가장 확신한 것부터 보여 줍니다. 직접 "
        "들어 보고 레이블도 확인하세요."
    ),
    "Id": "식별자",
    "Length": "길이",
    "Words": "전사문",
    "<code>--report.show_text true</code> also shows what was said: others may read it then.": (
        "<code>--report.show_text true</code>를 주면 말한 내용도 보여 줍니다. 그러면 다른 사람도 읽을 수 있게 됩니다."
    ),
    "Test rows by what the embeddings know of them. The difference is the macro-F1 of the rows less that of all others, with "
    "its 95 %% interval from a bootstrap of whole calls; in red, those that are worse beyond noise.": (
        "임베딩에 남은 정보로 테스트 행을 나누었습니다. 차이는 그 행들의 macro-F1에서 나머지 모든 행의 macro-F1을 뺀 값이며, "
        "아래는 통화 단위 부트스트랩의 95 %% 신뢰구간입니다. 빨간색은 잡음 이상으로 못한 곳입니다."
    ),
    "<strong>Worse beyond noise:</strong> %(worse)s.": "<strong>잡음 이상으로 못한 곳:</strong> %(worse)s.",
    "Nowhere is it worse beyond noise.": "잡음 이상으로 못한 곳은 없습니다.",
    "Rows of": "구분",
    "Less the others’": "나머지와의 차이",
    "Of %(number)s comparisons, one in twenty falls outside its interval by chance alone. What is measured is cut into thirds "
    "of the test rows; of fewer than %(least)s calls nothing is shown.": (
        "비교 %(number)s개 가운데 스무 개에 하나는 우연만으로도 구간을 벗어납니다. 측정값은 테스트 행을 삼등분하여 나누고, "
        "통화가 %(least)s건보다 적은 구분은 보여 주지 않습니다."
    ),
    "That left out %(number)s.": "그래서 제외한 구분: %(number)s개.",
    "Region": "지역",
    "Who speaks": "화자",
    "The caller’s share of what is said": "신고자 발화의 비율",
    "Share of the recording that is speech": "녹음에서 말소리의 비율",
    "Level of the recording": "녹음의 음량",
    "Clipping": "클리핑",
    "the caller": "신고자",
    "the dispatcher": "접수자",
    "reaches full scale": "최대 진폭에 닿음",
    "stays below full scale": "최대 진폭에 못 미침",
}

_MODALITIES_AND_PROBABILITIES = {
    "What each modality brings": "모달리티별 기여",
    "The same trunk trained on audio alone, on text alone and on both, each scored on the same %(rows)s test rows.": (
        "같은 구조를 음성만으로, 텍스트만으로, 둘 다로 학습하여 같은 테스트 %(rows)s행에서 평가했습니다."
    ),
    "fused %(fused)s (%(around)s), %(best)s %(single)s (%(around_single)s)": (
        "융합 %(fused)s (%(around)s), %(best)s %(single)s (%(around_single)s)"
    ),
    "The intervals of fused and of %(best)s, the better single modality, overlap: %(figures)s. These %(rows)s test rows do "
    "not show that fusing both beats %(best)s alone.": (
        "융합과 더 나은 단일 모달리티(%(best)s)의 구간이 겹칩니다: %(figures)s. 이 테스트 %(rows)s행만으로는 융합이 %(best)s "
        "단독보다 낫다고 할 수 없습니다."
    ),
    "Fusing both is better than %(best)s, the better single modality; the intervals do not overlap: %(figures)s.": (
        "융합이 더 나은 단일 모달리티(%(best)s)보다 낫고 구간이 겹치지 않습니다: %(figures)s."
    ),
    "Fusing both is worse than %(best)s, the better single modality; the intervals do not overlap: %(figures)s.": (
        "융합이 더 나은 단일 모달리티(%(best)s)보다 못하고 구간이 겹치지 않습니다: %(figures)s."
    ),
    "Test macro-F1 by modality": "모달리티별 테스트 macro-F1",
    "A dot is the score, the bar behind it its 95 %% interval.": "점은 점수, 뒤의 막대는 95 %% 신뢰구간입니다.",
    "The upright tick is the best reachable on this synthetic corpus (population figure); a finite test set scatters around "
    "it.": ("세로 눈금은 이 합성 코퍼스에서 도달할 수 있는 상한(모집단 값)이며, 유한한 테스트 집합은 그 주위에 흩어집니다."),
    "Modality": "모달리티",
    "Best reachable": "상한",
    "Whether a stated probability may be taken at its word.": "제시한 확률을 그대로 믿어도 되는지 봅니다.",
    "Reliability on the test split": "테스트 분할의 신뢰도 도표",
    "Each dot is the share right among rows of like confidence, with its 95 %% interval: below the dotted line the classifier "
    "is too sure of itself, above it too modest. The columns below count the rows.": (
        "점은 확신도가 비슷한 행들의 정답률과 95 %% 신뢰구간입니다. 점선 아래면 분류기가 지나치게 확신하고, 위면 지나치게 "
        "조심스럽습니다. 아래 막대는 행의 수입니다."
    ),
    "On %(rows)s labelled test rows the classifier is %(confidence)s confident on average and right on %(right)s of them.": (
        "레이블이 있는 테스트 %(rows)s행에서 분류기의 확신도는 평균 %(confidence)s, 정답률은 %(right)s입니다."
    ),
    "It is too sure of itself: take its probabilities as a ranking, not as odds.": (
        "지나치게 확신합니다. 확률값은 승산이 아니라 순위로만 받아들이세요."
    ),
    "It is too modest: it is right more often than it says.": "지나치게 조심스럽습니다. 말하는 것보다 더 자주 맞습니다.",
    "On average the two agree; the diagram shows whether they do at every level of confidence.": (
        "평균으로는 둘이 일치합니다. 확신도의 모든 수준에서 그런지는 도표로 확인하세요."
    ),
    "The calibration error of %(error)s is the mean distance of the dots from the line, weighted by their rows.": (
        "보정 오차 %(error)s는 점과 점선 사이의 거리를 행의 수로 가중한 평균입니다."
    ),
    "The logits were divided by a temperature of %(temperature)s, fitted on the validation split; without it the error would "
    "be %(error)s.": ("로짓은 검증 분할로 맞춘 온도 %(temperature)s로 나누었습니다. 그러지 않으면 오차는 %(error)s입니다."),
    "What flagging 상 is worth": "상으로 표시하는 것의 가치",
    "Net benefit on the test split": "테스트 분할의 순편익",
    "At a threshold of 0.2 a call is flagged where the model holds 상 for likelier than one in five: somebody who flags there "
    "takes four false alarms for one call found. The curve is the share of calls rightly flagged less the false alarms at "
    "that price.": (
        "임계값 0.2에서는 모델이 상일 확률을 다섯에 하나보다 높게 볼 때 표시합니다. 곧 한 건을 찾으려고 오경보 네 건을 "
        "감수한다는 뜻입니다. 곡선은 옳게 표시한 통화의 비율에서 그 값으로 셈한 오경보를 뺀 것입니다."
    ),
    "The model is worth using at those thresholds where its curve lies above both flagging every call and flagging none.": (
        "곡선이 '모두 표시'와 '표시 안 함'보다 위에 있는 임계값에서 모델을 쓸 가치가 있습니다."
    ),
}

_TRAINING_AND_DATA = {
    "One line a model, by epoch. The epoch with the best %(selected_by)s gives the weights that are kept.": (
        "모델마다 선 하나, 가로축은 에포크입니다. %(selected_by)s 기준으로 가장 좋은 에포크의 가중치를 남깁니다."
    ),
    "validation macro-F1": "검증 macro-F1",
    "mean of both tasks’ validation macro-F1": "두 과제의 검증 macro-F1 평균",
    "likelihood of the validation labels": "검증 레이블의 가능도",
    "Validation macro-F1": "검증 macro-F1",
    "Higher is better; the dot and its number mark the epoch whose weights are kept.": (
        "높을수록 좋습니다. 점과 숫자는 가중치를 남긴 에포크입니다."
    ),
    "Loss": "손실",
    "Dashed: training rows, with dropout on; solid: validation rows. A solid line that turns up while the dashed one still "
    "falls is overfitting.": (
        "파선은 학습 행(드롭아웃 켬), 실선은 검증 행입니다. 파선이 내려가는데 실선이 올라가면 과적합입니다."
    ),
    "Model": "모델",
    "Epochs": "에포크",
    "Best epoch": "최적 에포크",
    "Macro-F1, val": "Macro-F1 (검증)",
    "Accuracy, val": "정확도 (검증)",
    "Time": "시간",
    "means of %(number)s members, each on its own fold": "구성 모델 %(number)s개(각자의 폴드)의 평균",
    "Every call read is either embedded or rejected with a reason; none is dropped without a word.": (
        "읽은 통화는 모두 임베딩되었거나 이유와 함께 거부되었습니다. 말없이 버려지는 통화는 없습니다."
    ),
    "<strong>%(read)s calls read = %(embedded)s embedded + %(rejected)s rejected.</strong>": (
        "<strong>읽은 통화 %(read)s건 = 임베딩 %(embedded)s건 + 거부 %(rejected)s건.</strong>"
    ),
    "Of their utterances %(embedded)s are embedded and %(rejected)s rejected.": (
        "발화 가운데 %(embedded)s개가 임베딩되고 %(rejected)s개가 거부되었습니다."
    ),
    "%(audio)s of audio in %(time)s, %(speed)s times as fast as it plays.": (
        "음성 %(audio)s 분량을 %(time)s 만에 처리했습니다(재생 속도의 %(speed)s배)."
    ),
    "%(audio)s of audio in %(time)s.": "음성 %(audio)s 분량을 %(time)s 만에 처리했습니다.",
    "%(windowed)s recordings were longer than the audio encoder’s window and heard in parts; of the texts longer than the "
    "text encoder reads, %(read)s were read in parts and %(cut)s cut, which cost %(dropped)s tokens.": (
        "음성 인코더의 창보다 길어 나누어 들은 녹음은 %(windowed)s건입니다. 텍스트 인코더가 읽는 길이를 넘은 전사문 가운데 "
        "%(read)s건은 나누어 읽고 %(cut)s건은 잘라 토큰 %(dropped)s개를 잃었습니다."
    ),
    "%(seen)s files seen = %(read)s read + %(not_read)s not read%(by_suffix)s.": (
        "발견한 파일 %(seen)s개 = 읽음 %(read)s개 + 읽지 않음 %(not_read)s개%(by_suffix)s."
    ),
    "Calls that can be read, by the provider’s split: %(by_split)s.": "읽을 수 있는 통화(제공자의 분할별): %(by_split)s.",
    "%(number)s of the rejects are copies of these calls: nothing is lost with them.": (
        "거부된 것 가운데 %(number)s건은 이 통화들의 사본이므로 잃은 것이 없습니다."
    ),
    "Utterances rejected": "거부된 발화",
    "No explanation is known to this version.": "이 버전에는 설명이 없습니다.",
    "Who is covered, by region": "지역별 통화 수",
    "Share rejected": "거부 비율",
    "Small: the 95 %% interval of the share (Wilson). Calls whose region is not known are left out.": (
        "작은 글씨는 비율의 95 %% 신뢰구간(Wilson)입니다. 지역을 알 수 없는 통화는 뺐습니다."
    ),
    "What made the embeddings": "임베딩을 만든 것",
    "audio encoder": "음성 인코더",
    "text encoder": "텍스트 인코더",
    "transcriber": "받아쓰기 모델",
    "unknown": "알 수 없음",
    "Fields of <code>config.yaml</code> that differ from the defaults; all others are as <code>urgency-ray train "
    "--help</code> lists them.": (
        "<code>config.yaml</code>에서 기본값과 다른 항목입니다. 나머지는 <code>urgency-ray train --help</code>가 보여 주는 "
        "기본값입니다."
    ),
    "This run": "이 실행",
    "Default": "기본값",
    "unknown date": "날짜 모름",
    "%(name)s · newest input of %(date)s · urgency_ray %(version)s.": (
        "%(name)s · 가장 새로운 입력 %(date)s · urgency_ray %(version)s."
    ),
    "<strong>This page holds what was said in some calls: keep it where only those may read it who may hear them.</strong>": (
        "<strong>이 페이지에는 일부 통화의 내용이 들어 있습니다. 그 통화를 들어도 되는 사람만 읽을 수 있는 곳에 "
        "두세요.</strong>"
    ),
    "Figures, and ids of the calls listed: this page holds no transcript and no address.": (
        "수치와 목록에 오른 통화의 식별자만 있습니다. 전사문과 주소는 들어 있지 않습니다."
    ),
    "Counts and figures only: this page holds no transcript, no address and no call id.": (
        "건수와 수치만 있습니다. 전사문, 주소, 통화 식별자는 들어 있지 않습니다."
    ),
    "%(number)s s": "%(number)s초",
    "%(number)s min": "%(number)s분",
    "%(number)s h": "%(number)s시간",
    "%(low)s to %(high)s": "%(low)s ~ %(high)s",
    "95 %% interval %(low)s to %(high)s": "95 %% 신뢰구간 %(low)s ~ %(high)s",
}

_TUNING = {
    "Each trial trains with other values of the searched fields. Validation picks the trial; the test split is scored once, "
    "for the trial picked.": (
        "트라이얼마다 탐색 항목의 값을 바꾸어 학습합니다. 트라이얼은 검증 점수로 고르고, 테스트는 고른 트라이얼로 한 번만 "
        "평가합니다."
    ),
    "<strong>This search has not come to its end.</strong> %(number)s trial has a score so far; nothing is picked, and test "
    "is not looked at, before all have. <code>urgency-ray tune --resume</code> goes on with it.": (
        "<strong>이 탐색은 아직 끝나지 않았습니다.</strong> 지금까지 점수가 있는 트라이얼은 %(number)s개입니다. 모두 끝나기 "
        "전에는 아무것도 고르지 않고 테스트도 보지 않습니다. <code>urgency-ray tune --resume</code>으로 이어서 합니다."
    ),
    "<strong>This search has not come to its end.</strong> %(number)s trials have a score so far; nothing is picked, and test "
    "is not looked at, before all have. <code>urgency-ray tune --resume</code> goes on with it.": (
        "<strong>이 탐색은 아직 끝나지 않았습니다.</strong> 지금까지 점수가 있는 트라이얼은 %(number)s개입니다. 모두 끝나기 "
        "전에는 아무것도 고르지 않고 테스트도 보지 않습니다. <code>urgency-ray tune --resume</code>으로 이어서 합니다."
    ),
    "Trial %(trial)s was picked out of %(trials)s for a validation macro-F1 of %(score)s%(several)s. Trained again with its "
    "values, it reaches %(val)s on validation and <strong>%(tested)s on test</strong> (%(interval)s, n = %(rows)s).": (
        "%(trials)s개 가운데 트라이얼 %(trial)s을(를) 검증 macro-F1 %(score)s%(several)s로 골랐습니다. 그 값으로 다시 "
        "학습하면 검증 %(val)s, <strong>테스트 %(tested)s</strong>입니다 (%(interval)s, n = %(rows)s)."
    ),
    "The score that it was picked for is %(above)s above that on test. Part of that is selection optimism, since the best of "
    "%(trials)s is also the luckiest, part of it the chance of two small samples: quote the test score.": (
        "고를 때의 점수가 테스트 점수보다 %(above)s 높습니다. 일부는 %(trials)s개 가운데 가장 좋은 것이 가장 운 좋은 것이기도 "
        "한 데서 오는 낙관 편향이고, 일부는 작은 두 표본의 우연입니다. 인용할 때는 테스트 점수를 쓰세요."
    ),
    "The score that it was picked for is %(below)s below that on test: no sign of selection optimism here. Quote the test "
    "score all the same.": (
        "고를 때의 점수가 테스트 점수보다 %(below)s 낮습니다. 낙관 편향의 징후는 없습니다. 그래도 인용할 때는 테스트 점수를 "
        "쓰세요."
    ),
    "trial picked": "뽑힌 트라이얼",
    "recipe’s defaults": "원래 설정",
    "difference on test": "테스트에서의 차이",
    "Small: 95 %% intervals. That of the difference is a paired bootstrap: both classify the same resampled test calls, so it "
    "is narrower than the two others suggest.": (
        "작은 글씨는 95 %% 신뢰구간입니다. 차이의 구간은 대응 부트스트랩으로, 두 모델이 같은 재표본 통화를 분류하므로 다른 두 "
        "구간에서 짐작하는 것보다 좁습니다."
    ),
    "The models of the search as one": "탐색한 모델의 앙상블",
    "The model saved": "저장된 모델",
    "The trial picked": "뽑힌 트라이얼",
    "%(completed)s trials completed, %(stopped)s were stopped early, %(failed)s failed; %(time)s, seed %(seed)s.": (
        "완료 %(completed)s개, 조기 중단 %(stopped)s개, 실패 %(failed)s개. %(time)s, 시드 %(seed)s."
    ),
    "Train the trial picked": "뽑힌 트라이얼로 학습하기",
    "<code>RUN</code> is the path or URI of this run folder, %(name)s. What <code>best.yaml</code> says of the model and its "
    "training, where it differs from the defaults:": (
        "<code>RUN</code>은 이 실행 폴더(%(name)s)의 경로나 URI입니다. <code>best.yaml</code>에서 모델과 학습에 관한 항목 "
        "가운데 기본값과 다른 것:"
    ),
    "as the defaults": "모두 기본값",
    "What the search changed": "탐색이 바꾼 것",
    "The %(shown)s best of %(all)s trials with a score": "점수가 있는 트라이얼 %(all)s개 가운데 상위 %(shown)s개",
    "Trial": "트라이얼",
    "State": "상태",
    "Bold, ◆: the trial picked.": "굵은 글씨와 ◆: 뽑힌 트라이얼.",
    "±: standard deviation over its folds or repeats.": "±: 폴드나 반복의 표준편차.",
    "Gaps between ranks that are narrow beside the test interval may be chance.": (
        "테스트 신뢰구간에 비해 좁은 순위 차이는 우연일 수 있습니다."
    ),
    "Trials in order": "트라이얼 순서대로",
    "A dot is the validation macro-F1 of a trial’s best epoch, hollow where the trial was stopped early; the line is the best "
    "so far, and where it goes flat more trials no longer help.": (
        "점은 트라이얼의 최적 에포크의 검증 macro-F1이며, 속이 빈 점은 조기 중단된 트라이얼입니다. 선은 그때까지의 "
        "최고점으로, 평평해지면 트라이얼을 더 해도 나아지지 않습니다."
    ),
    "By the clock": "시간에 따라",
    "The same dots where the trials ended, and below how many ran at once. Pauses of an interrupted search are left out.": (
        "같은 점을 트라이얼이 끝난 시각에 놓았고, 아래는 동시에 돌던 트라이얼의 수입니다. 탐색이 중단되었던 시간은 뺐습니다."
    ),
    "Where ASHA stopped trials": "ASHA가 중단한 지점",
    "A line a trial, ended where the trial ended. Dotted: the rungs; the number on top says how many trials got there.": (
        "트라이얼마다 선 하나이며 트라이얼이 끝난 곳에서 끝납니다. 점선은 단계(rung), 위의 숫자는 거기까지 간 트라이얼의 "
        "수입니다."
    ),
    "Rungs": "단계(rung)",
    "After epoch": "에포크 뒤",
    "Reached": "도달",
    "Stopped": "중단",
    "Best stopped": "중단된 것 중 최고",
    "Stopped: there, or before the next rung. A best stopped score close to the picked one says that "
    "<code>tune.grace_epochs</code> may be too short.": (
        "중단: 그 단계에서, 또는 다음 단계 전에 중단된 트라이얼. 중단된 것 중 최고점이 뽑힌 점수에 가까우면 "
        "<code>tune.grace_epochs</code>가 너무 짧을 수 있습니다."
    ),
    "What it took": "들인 비용",
    "Search": "탐색",
    "%(rate)s trials a minute, %(at_once)s at once on average": "분당 트라이얼 %(rate)s개, 평균 %(at_once)s개 동시 실행",
    "All trials": "모든 트라이얼",
    "%(stopped)s in stopped ones, %(failed)s in failed ones": "조기 중단된 것에 %(stopped)s, 실패한 것에 %(failed)s",
    "%(share)s of the %(full)s there would be if every trial ran to the end": (
        "모두 끝까지 돌렸을 때의 %(full)s 가운데 %(share)s"
    ),
    "most trials at once; null: what fits the cluster": "동시에 돌리는 최대 트라이얼 수. null은 클러스터에 들어가는 만큼",
    "CPUs of a trial": "트라이얼 하나의 CPU 수",
    "GPUs of a trial": "트라이얼 하나의 GPU 수",
    "Ray Train workers of a trial": "트라이얼 하나의 Ray Train 워커 수",
    "folds that a trial’s score is the mean of": "트라이얼의 점수를 평균하는 폴드 수",
    "seeds that a trial’s score is the mean of": "트라이얼의 점수를 평균하는 시드 수",
    "longest search in seconds": "가장 긴 탐색 시간(초)",
    "Trials across all fields": "모든 항목에 걸친 트라이얼",
    "(logarithmic: %(fields)s)": "(로그 축: %(fields)s)",
    "Parallel coordinates, lying: a line a trial, crossing each field’s axis at its value, least left, largest right%(wide)s. "
    "Thick: the trial picked. Where lines of the high colour come together, good trials agree.": (
        "눕힌 평행 좌표입니다. 트라이얼마다 선 하나가 각 항목의 축을 그 값에서 지나며, 왼쪽이 가장 작고 오른쪽이 가장 "
        "큽니다%(wide)s. 굵은 선은 뽑힌 트라이얼입니다. 높은 점수의 색이 모이는 곳은 좋은 트라이얼들이 일치하는 곳입니다."
    ),
    "Which fields matter": "중요한 항목",
    "<strong>Means little: %(trials)s trials are too few for %(fields)s fields.</strong>": (
        "<strong>의미가 약합니다: 항목 %(fields)s개에 트라이얼 %(trials)s개는 너무 적습니다.</strong>"
    ),
    "fANOVA: a random forest learns the score of all %(trials)s trials with a score from their values; a bar is the share of "
    "its variance that the field explains alone. What is missing to 100 %% is in combinations. The weights of a mixture "
    "depend on each other: read them together.": (
        "fANOVA: 점수가 있는 트라이얼 %(trials)s개의 값으로 랜덤 포레스트가 점수를 학습하며, 막대는 그 분산 가운데 항목 "
        "하나가 홀로 설명하는 비율입니다. 100 %%에 모자라는 부분은 항목의 조합에 있습니다. 혼합 가중치는 서로 얽혀 있으므로 "
        "함께 읽으세요."
    ),
    "Left out, since not every trial has them or they never changed: %(fields)s.": (
        "모든 트라이얼에 있지 않거나 바뀐 적이 없어 뺀 항목: %(fields)s."
    ),
    "The loss mixture": "손실 혼합",
    "A corner is one part alone, the middle all in equal shares, a grid line a quarter. Hollow: stopped early.": (
        "꼭짓점은 한 손실만, 가운데는 모두 같은 비율, 격자선은 4분의 1입니다. 속이 빈 점은 조기 중단입니다."
    ),
    "Score against each searched field": "탐색 항목별 점수",
    "Every panel holds the trials that have the field at the same heights (macro-F1, validation). A cloud that leans says "
    "that the field matters; good trials at an edge say that the range should be wider. Hollow: stopped early. Diamond: the "
    "trial picked.": (
        "칸마다 그 항목이 있는 트라이얼을 같은 높이(검증 macro-F1)에 놓았습니다. 구름이 기울면 중요한 항목이고, 좋은 "
        "트라이얼이 가장자리에 있으면 범위를 넓혀야 합니다. 속이 빈 점은 조기 중단, 마름모는 뽑힌 트라이얼입니다."
    ),
    ", the mean over its folds or repeats": "(폴드나 반복의 평균)",
    "completed": "완료",
    "stopped": "조기 중단",
    "failed": "실패",
    "trial %(number)s": "트라이얼 %(number)s",
    "winner": "뽑힌 트라이얼",
    "defaults": "원래 설정",
    "ensemble": "앙상블",
    "linear": "선형 모델",
    "discriminant": "판별 분석",
    "stacked": "스태킹 모델",
    "the ensemble of its models": "모델들의 앙상블",
    "%(score)s against %(other)s": "%(score)s (원래 설정 %(other)s)",
    "Their ensemble is made of %(shares)s: test macro-F1 %(macro_f1)s, %(winner)s against the winner alone "
    "(%(around_winner)s) and %(defaults)s against the defaults (%(around_defaults)s). Log loss on rows that the models have "
    "not seen: %(losses)s. The model saved is that of %(chosen)s.": (
        "앙상블의 구성: %(shares)s. 테스트 macro-F1은 %(macro_f1)s로, 뽑힌 트라이얼 단독과의 차이는 "
        "%(winner)s(%(around_winner)s), 원래 설정과의 차이는 %(defaults)s(%(around_defaults)s)입니다. 모델이 보지 못한 행의 "
        "로그 손실: %(losses)s. 저장된 모델: %(chosen)s."
    ),
    "Whether %(name)s, which the search picked, is better than the recipe’s defaults was not measured.": (
        "탐색이 고른 %(name)s: 원래 설정보다 나은지 재지 않았습니다."
    ),
    "The search kept the recipe’s defaults: nothing did better on rows that it had not seen.": (
        "탐색은 원래 설정을 그대로 두었습니다. 보지 못한 행에서 더 나은 것이 없었습니다."
    ),
    "The search picked the recipe’s defaults themselves: no other trial did better on validation.": (
        "탐색은 원래 설정을 골랐습니다. 검증에서 더 나은 트라이얼이 없었습니다."
    ),
    "test macro-F1 %(scores)s, a difference of %(difference)s (%(around)s)": (
        "테스트 macro-F1 %(scores)s, 차이 %(difference)s (%(around)s)"
    ),
    "The search found better: %(name)s beats the recipe’s defaults beyond noise, %(figures)s.": (
        "탐색이 더 나은 것을 찾았습니다. %(name)s: 원래 설정보다 잡음 이상으로 낫습니다, %(figures)s."
    ),
    "Keep the recipe’s defaults: %(name)s, which the search picked, is worse beyond noise, %(figures)s.": (
        "원래 설정을 유지하세요. 탐색이 고른 %(name)s: 잡음 이상으로 못합니다, %(figures)s."
    ),
    "The search found nothing that is better than the recipe’s defaults beyond noise: %(name)s has %(figures)s; that interval "
    "includes zero.": (
        "탐색은 원래 설정보다 잡음 이상으로 나은 것을 찾지 못했습니다. %(name)s: %(figures)s. 구간이 0을 포함합니다."
    ),
}

_CHARTS = {
    "Loss by epoch": "에포크에 따른 손실",
    "Validation macro-F1 by epoch": "에포크에 따른 검증 macro-F1",
    "Net benefit of flagging 상 by threshold": "임계값에 따른 상 표시의 순편익",
    "Reliability of the predicted probabilities": "예측 확률의 신뢰도",
    "epoch": "에포크",
    "loss": "손실",
    "macro-F1, validation": "macro-F1 (검증)",
    "macro-F1, test": "macro-F1 (테스트)",
    "macro-F1, val.": "macro-F1 (검증)",
    "model": "모델",
    "flag all": "모두 표시",
    "flag none": "표시 안 함",
    "threshold on P(상)": "P(상) 임계값",
    "net benefit": "순편익",
    "share right": "정답률",
    "confidence of the predicted class": "예측 등급의 확신도",
    "rows": "행",
    "best reachable": "상한",
    "Validation macro-F1 by %(field)s": "%(field)s에 따른 검증 macro-F1",
    "Importance of each searched field": "탐색 항목의 중요도",
    "Parallel coordinates of the trials": "트라이얼의 평행 좌표",
    "Macro-F1 by mixture of %(fields)s": "%(fields)s 혼합에 따른 macro-F1",
    "%% of the variance": "분산의 %%",
    "the config’s own": "원래 설정",
    "picked": "뽑힘",
    "Validation macro-F1 by trial": "트라이얼별 검증 macro-F1",
    "Best validation macro-F1 by time": "시간에 따른 최고 검증 macro-F1",
    "Best validation macro-F1 by epoch of every trial": "트라이얼마다 에포크에 따른 최고 검증 macro-F1",
    "best so far": "그때까지 최고",
    "trial": "트라이얼",
    "minutes of search": "탐색 시간(분)",
    "seconds of search": "탐색 시간(초)",
    "running": "실행 중",
    "best macro-F1 so far, validation": "그때까지 최고 macro-F1 (검증)",
}

_MEASURES = {
    "share of the rows given the right class": "등급을 맞힌 행의 비율",
    "mean of the classes’ F1, so that a rare class counts as much as a common one": (
        "등급별 F1의 평균. 드문 등급도 흔한 등급만큼 셉니다"
    ),
    "share of the 상 rows that are found": "상인 행 가운데 찾아낸 비율",
    "share of the 상 rows taken for the lowest class: the costly error, best at 0": (
        "상인 행을 가장 낮은 등급으로 본 비율: 가장 치명적인 오류, 0이 최선"
    ),
    "Under-triage": "과소분류",
    "share of the rows called less urgent than they are": "실제보다 덜 긴급하다고 본 행의 비율",
    "Over-triage": "과대분류",
    "share of the rows called more urgent than they are": "실제보다 더 긴급하다고 본 행의 비율",
    "AUROC of 상": "상의 AUROC",
    "how often a 상 row has a higher P(상) than another row; 0.5 is chance": (
        "상인 행의 P(상)이 다른 행보다 높을 확률. 0.5는 우연"
    ),
    "AUPRC of 상": "상의 AUPRC",
    "mean precision over all recalls of 상; chance is the share of 상": "상의 모든 재현율에 걸친 평균 정밀도. 우연은 상의 비율",
    "Ordinal MAE": "서열 MAE",
    "mean number of classes between the true and the predicted one; best 0, worst 2": (
        "정답과 예측 사이의 평균 등급 차이. 최선 0, 최악 2"
    ),
    "Quadratic kappa": "이차 가중 카파",
    "agreement beyond chance, where far misses weigh more; 1 is perfect, 0 is chance": (
        "우연을 넘는 일치도. 멀리 빗나갈수록 크게 셉니다. 1은 완전, 0은 우연"
    ),
    "Log loss": "로그 손실",
    "mean of −log of the probability of what was true; best 0, 1.099 says nothing": (
        "정답 확률의 −log 평균. 최선 0, 1.099면 정보 없음"
    ),
    "Brier score": "Brier 점수",
    "squared distance of the probabilities from the truth; best 0, worst 2": "확률과 정답의 제곱 거리. 최선 0, 최악 2",
    "Calibration error": "보정 오차",
    "mean gap between stated confidence and share right, best at 0": "제시한 확신도와 정답률의 평균 차이, 0이 최선",
}

REASONS: dict[Reason, str] = {
    Reason.MISSING_AUDIO: "같은 이름의 녹음이 없는 레이블 파일입니다.",
    Reason.MISSING_LABEL: "같은 이름의 레이블 파일이 없는 녹음입니다.",
    Reason.DUPLICATE_STEM: "이미 읽은 통화의 사본이거나, 한 통화에 딸린 두 번째 녹음 또는 레이블 파일입니다.",
    Reason.DUPLICATE_ID: "앞의 다른 행과 id가 같은 매니페스트 행입니다.",
    Reason.INVALID_ROW: "읽을 수 없는 값이 있거나 음성이 없는 매니페스트 행입니다.",
    Reason.AMBIGUOUS_STEM: "같은 이름의 녹음이나 레이블 파일이 여럿인데 어느 것이 짝인지 폴더로 알 수 없습니다.",
    Reason.UNREADABLE_ARCHIVE: "읽지 않는 종류이거나, 나뉘어 있거나, 목록이 손상된 압축 파일입니다.",
    Reason.UNREADABLE_FILE: "암호화되었거나 손상되었거나, 일반 파일이 아니거나, 읽기에 실패한 파일입니다.",
    Reason.FILE_TOO_LARGE: "받아들이는 가장 긴 통화보다 큰 파일입니다.",
    Reason.INVALID_JSON: "레이블 파일이 JSON이 아니거나 읽을 수 있는 인코딩이 아닙니다.",
    Reason.INVALID_LABEL: "레이블 파일에서 쓰는 항목이 없거나, 두 번 나오거나, 형식이 틀렸습니다.",
    Reason.MISSING_URGENCY: "레이블 파일에 긴급도가 없습니다.",
    Reason.UNKNOWN_URGENCY: "긴급도가 하, 중, 상 가운데 하나가 아닙니다.",
    Reason.NO_TEXT: "전사문에 남은 단어가 없습니다.",
    Reason.NOT_AUDIO: "디코딩할 수 있는 녹음 파일이 아닙니다.",
    Reason.EMPTY_AUDIO: "녹음이 0바이트이거나 헤더만 있고 샘플이 없습니다.",
    Reason.TRUNCATED_AUDIO: "녹음이 헤더에 적힌 길이보다 먼저 끝납니다.",
    Reason.TOO_LONG: "통화가 data.max_call_sec보다 깁니다.",
    Reason.INVALID_SAMPLES: "녹음의 샘플이 유한한 수가 아닙니다.",
    Reason.SILENT_AUDIO: "녹음의 모든 샘플이 0이거나 같은 값입니다.",
    Reason.CHANNELS_CANCEL: "평균을 내면 채널이 서로 상쇄됩니다. data.channel을 지정하세요.",
    Reason.TOO_SHORT: "통화가 data.min_call_sec보다, 또는 발화가 data.min_utterance_sec보다 짧습니다.",
    Reason.INVALID_EMBEDDING: "인코더가 유한한 수가 아닌 값을 냈습니다.",
    Reason.INVALID_PROBABILITY: "분류기가 유한한 수가 아닌 값을 냈습니다. 극단적인 임베딩에서 그럴 수 있습니다.",
    Reason.INVALID_SPAN: "발화에 시간이 없거나, 시작보다 먼저 끝나거나, 녹음 밖에 있습니다.",
}
"""What a reader is told about each reason."""

KOREAN: dict[str, str] = {
    **_COMPARE,
    **_HEADER,
    **_RESULT,
    **_MODALITIES_AND_PROBABILITIES,
    **_TRAINING_AND_DATA,
    **_TUNING,
    **_CHARTS,
    **_MEASURES,
}
