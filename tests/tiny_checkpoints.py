"""Tiny checkpoints of the recipes' architectures, random weights, written with save_pretrained, for the real loading code."""

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

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
