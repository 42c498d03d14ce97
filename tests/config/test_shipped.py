"""Every shipped config loads; the recipes say what the published systems do."""

from pathlib import Path
from typing import Any

import pytest

from urgency_ray.config import load_config

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_shipped_config_loads_and_its_search_fits_its_fields(path: Any) -> None:
    config = load_config(path)
    if config.tune.space:
        from urgency_ray.search.space import SearchSpace, check_space

        check_space(config)
        assert SearchSpace(config.tune.space).locate(config), "the config's own values are the first trial"


def load(name: Any) -> Any:
    return load_config(next(path for path in CONFIGS if path.stem == name))


def test_urgency_sense_is_its_recipe() -> None:
    config = load("urgency_sense")
    assert config.audio_encoder.name == "facebook/data2vec-audio-base"
    assert (config.audio_encoder.pooling, config.audio_encoder.peak_normalize, config.audio_encoder.l2_normalize) == (
        "mean",
        True,
        True,
    )
    assert config.audio_encoder.window_sec is None
    text = config.text_encoder
    assert (text.name, text.max_tokens, text.pooling) == ("jhgan/ko-sroberta-multitask", 384, "cls")
    assert (text.layer_norm, text.l2_normalize) == (True, True)
    model = config.model
    assert (model.name, model.hidden_dim, model.num_layers, model.num_heads) == ("cross_attention", 768, 3, 8)
    assert (model.feedforward_dim, model.encoder_dropout, model.dropout, model.head_dim) == (2048, 0.2, 0.4, 512)
    assert model.acoustic_features
    assert not model.standardize_embeddings
    loss = config.loss
    assert (loss.mode, loss.kl_weight, loss.focal_weight, loss.cross_entropy_weight) == ("stochastic", 0.25, 0.40, 0.35)
    assert (loss.focal_gamma, loss.soft_label_mass) == (2.0, 0.2)
    assert (config.sampler.name, config.sampler.power) == ("weighted", 0.5)
    train = config.train
    assert (train.learning_rate, train.weight_decay, train.epochs, train.batch_size) == (3e-5, 0.01, 50, 32)
    assert (train.schedule, train.restart_epochs, train.restart_factor) == ("cosine_warm_restarts", 10, 2)
    assert (train.early_stop_epochs, train.clip_norm) == (10, 1.0)
    assert config.split.val_fraction + config.split.test_fraction == pytest.approx(0.2)


def test_the_search_takes_what_urgency_sense_has_embedded() -> None:
    search, recipe = load("tune_fusion"), load("urgency_sense")
    assert (search.audio_encoder, search.text_encoder) == (recipe.audio_encoder, recipe.text_encoder)


def test_urgency_detect_is_its_recipe() -> None:
    config = load("urgency_detect")
    assert (config.data.unit, config.data.min_utterance_sec) == ("utterance", 0.5)
    audio = config.audio_encoder
    assert (audio.name, audio.window_sec) == ("kresnik/wav2vec2-large-xlsr-korean", None)
    model = config.model
    assert (model.name, model.text_encoder) == ("cross_modal", "monologg/koelectra-base-v3-discriminator")
    assert (model.trainable_layers, model.max_tokens, model.num_heads, model.dropout) == (None, 512, 4, 0.1)
    assert not model.acoustic_features
    loss = config.loss
    assert (loss.mode, loss.kl_weight, loss.focal_weight, loss.cross_entropy_weight) == ("expected", 0.0, 0.0, 1.0)
    assert (loss.sentiment_weight, loss.class_weights, config.sampler.name) == (0.4, "balanced", "none")
    train = config.train
    assert (train.batch_size, train.learning_rate, train.epochs, train.clip_norm) == (16, 2e-5, 5, 1.0)
    assert (train.schedule, train.min_learning_rate, train.weight_decay) == ("cosine", 1e-6, 0.01)
    assert (train.select_by, train.early_stop_epochs) == ("mean_of_tasks", None)
    assert config.split.test_fraction == 0.15


def test_the_baseline_is_its_recipe() -> None:
    config = load("baseline_concat")
    assert config.audio_encoder.name == "MIT/ast-finetuned-audioset-10-10-0.4593"
    assert config.text_encoder.name == "beomi/KcELECTRA-base"
    assert config.model.name == "concat"


def test_the_hierarchical_model_takes_urgency_sense_s_encoders_on_utterances() -> None:
    config, recipe = load("hierarchical"), load("urgency_sense")
    assert (config.model.name, config.data.unit) == ("hierarchical", "utterance")
    assert config.audio_encoder == recipe.audio_encoder
    assert config.text_encoder == recipe.text_encoder
