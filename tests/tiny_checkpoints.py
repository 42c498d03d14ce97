"""Tiny checkpoints of the recipes' architectures, random weights, written with save_pretrained, for the real loading code."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from urgency_ray.config import Config, ModelConfig
from urgency_ray.embedding.transform import make_fingerprint
from urgency_ray.fingerprint import Transform
from urgency_ray.model.classifier import UrgencyClassifier

tf: Any = transformers  # its constructors and checkpoints are typed in part only

SENTENCES = [
    "119입니다 무엇을 도와드릴까요",
    "사람이 쓰러졌는데 의식이 없어요 빨리 와주세요",
    "불이 났어요 연기가 많이 나요",
    "문이 안 열려서 그런데요 급하지는 않아요",
]

_CONV: dict[str, Any] = {"conv_dim": (16,) * 7, "conv_kernel": (10, 3, 3, 3, 3, 2, 2), "conv_stride": (5, 2, 2, 2, 2, 2, 2)}
_SMALL: dict[str, Any] = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}


def save_audio_checkpoint(folder: Path, architecture: str) -> str:
    torch.manual_seed(7)
    raw = tf.Wav2Vec2FeatureExtractor(
        sampling_rate=16000, do_normalize=True, return_attention_mask=architecture != "wav2vec2_group"
    )
    if architecture == "data2vec":
        model = tf.Data2VecAudioModel(
            tf.Data2VecAudioConfig(
                **_SMALL, **_CONV, num_conv_pos_embeddings=3, conv_pos_kernel_size=5, num_conv_pos_embedding_groups=2
            )
        )
    elif architecture == "ast":
        raw = tf.ASTFeatureExtractor(num_mel_bins=32, max_length=128)
        model = tf.ASTModel(
            tf.ASTConfig(**_SMALL, num_mel_bins=32, max_length=128, patch_size=16, frequency_stride=10, time_stride=10)
        )
    else:
        norm = {"wav2vec2_group": "group", "wav2vec2_layer": "layer"}[architecture]
        model = tf.Wav2Vec2Model(
            tf.Wav2Vec2Config(
                **_SMALL,
                **_CONV,
                feat_extract_norm=norm,
                do_stable_layer_norm=norm == "layer",
                num_conv_pos_embeddings=16,
                num_conv_pos_embedding_groups=2,
            )
        )
    path = folder / architecture
    model.save_pretrained(path)
    raw.save_pretrained(path)
    return str(path)


def save_text_checkpoint(folder: Path, architecture: str) -> str:
    torch.manual_seed(7)
    special = {"unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "mask_token": "[MASK]"}
    raw = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    raw.normalizer = normalizers.BertNormalizer(strip_accents=False)
    raw.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    raw.train_from_iterator(SENTENCES, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[PAD]", *special.values()]))
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, raw.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    )
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=raw, **special)
    size = {**_SMALL, "vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": 66}
    if architecture == "roberta":
        model = tf.RobertaModel(tf.RobertaConfig(**size, type_vocab_size=1))
    else:
        model = tf.ElectraModel(tf.ElectraConfig(**size, embedding_size=24))
    path = folder / architecture
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return str(path)


def save_whisper_checkpoint(folder: Path, *, chunk_sec: int = 5, languages: tuple[str, ...] = ("ko", "en")) -> str:
    """A Whisper of windows of `chunk_sec` that writes at most 24 tokens; without languages, of one language."""
    torch.manual_seed(7)
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tags = [f"<|{language}|>" for language in languages]
    # Behind the last, which is as in Whisper's own, a token would mean a time.
    special = ["<|endoftext|>", "<|startoftranscript|>", *tags, "<|translate|>", "<|transcribe|>", "<|notimestamps|>"]
    letters = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        SENTENCES, trainers.BpeTrainer(vocab_size=300, special_tokens=special[:1], initial_alphabet=letters)
    )
    tokenizer = tf.PreTrainedTokenizerFast(
        tokenizer_object=raw, eos_token=special[0], pad_token=special[0], extra_special_tokens=special[1:]
    )
    ids = dict(zip(special, tokenizer.convert_tokens_to_ids(special), strict=True))
    extractor = tf.WhisperFeatureExtractor(feature_size=16, chunk_length=chunk_sec)
    end, start = ids[special[0]], ids[special[1]]
    config = tf.WhisperConfig(
        vocab_size=len(tokenizer),
        num_mel_bins=16,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_source_positions=50 * chunk_sec,
        max_target_positions=24,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        init_std=0.4,  # or it would write the same, whatever it hears
    )
    model = tf.WhisperForConditionalGeneration(config)
    settings: dict[str, Any] = {"is_multilingual": bool(languages), "no_timestamps_token_id": ids["<|notimestamps|>"]}
    if languages:
        settings["lang_to_id"] = {tag: ids[tag] for tag in tags}
        settings["task_to_id"] = {task: ids[f"<|{task}|>"] for task in ("transcribe", "translate")}
    # The beams that it asks for are not taken.
    model.generation_config = tf.GenerationConfig(
        num_beams=3,
        max_length=20,
        decoder_start_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        bos_token_id=end,
        **settings,
    )
    path = folder / "whisper"
    for part in (model, extractor, tokenizer):
        part.save_pretrained(path)
    return str(path)


def save_model(folder: Path, config: Config, text_dim: int = 512) -> None:
    """A model folder on a config's encoders, as `train` writes it."""
    small = ModelConfig(hidden_dim=16, num_heads=2, num_layers=1, feedforward_dim=16, head_dim=8)
    kept = Transform.of(config, make_fingerprint(config)).model_dump()
    UrgencyClassifier(small, 288, text_dim, False, kept).save_pretrained(folder)
