"""The knobs of extraction: what a row is, what encodes it, what writes down its words, and how the work is shared out."""

from __future__ import annotations

from typing import Annotated, Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from urgency_ray.config.tree import NonNegativeFloat, PositiveFloat, PositiveInt, Role, Section

BUILT_IN_AUDIO = "spectral"
BUILT_IN_TEXT = "hashing"

Dtype = Literal["auto", "float32", "bfloat16", "float16", "int8"]
"""Arithmetics of transformers' models by name."""

ManifestColumn = Literal[
    "audio",
    "id",
    "text",
    "utterances",
    "label",
    "urgency",
    "sentiment",
    "disaster_large",
    "disaster_medium",
    "split",
    "speaker",
    "group",
    "region",
    "offset",
    "duration",
]
"""What a column of a manifest can say of a call."""


class DataConfig(Section, role=Role.EMBEDDING):
    root: Annotated[str | None, Role.PLACE] = None
    """Folder or URI that holds the archives, or WAV and JSON files, in any nesting."""
    manifest: Annotated[str | None, Role.PLACE] = None
    """CSV, JSON lines or parquet file (or URI) with a row for each call, in place of data.root."""
    manifest_columns: Annotated[dict[str, str], Role.PLACE] = Field(default_factory=dict)
    """Names of the manifest's columns, where they are none of the usual ones: {text: words, urgency: level}."""
    unit: Literal["call", "utterance"] = "call"
    """What a row stands for: a whole call, or one utterance of it."""
    speakers: Literal["all", "caller"] = "all"
    """Whose words make the transcript, and whose utterances are rows."""
    require_urgency: bool = True
    """Reject calls without an urgency label; false keeps them with a null label (predict does)."""
    require_text: bool = True
    """Reject calls without words; false keeps them, and recordings without a label (predict does for models of audio)."""
    min_utterance_sec: NonNegativeFloat = 0.5
    """Shortest utterance that becomes a row, in seconds."""
    min_call_sec: NonNegativeFloat = 0.1
    """Shortest call that becomes a row, in seconds."""
    max_call_sec: PositiveFloat = 7200.0
    """Longest call that is decoded, in seconds; bounds the memory that one file can take."""
    channel: Literal["mean", "loudest", "left", "right", "caller"] = "mean"
    """What is heard of several channels: their mean, the loudest, the first, the second, or the caller's by the utterances."""
    pcm_rate_hz: Annotated[int, Field(ge=1000, le=384_000)] | None = None
    """Sample rate of .pcm and .raw files: 16 bits, little-endian, mono, without a header; null rejects them."""

    text_rules: Literal[1, 2] = 2
    """What of a transcript is no word: privacy masks and transcribers' marks in all their spellings; 1 is `***` and
    `***[개인정보]` alone, as version 0.2.0 had it, to go on with a run folder of that."""

    @field_validator("manifest_columns")
    @classmethod
    def _names_what_is_read(cls, columns: dict[str, str]) -> dict[str, str]:
        if unknown := sorted(columns.keys() - set(get_args(ManifestColumn))):
            raise ValueError(
                f"{unknown[0]} is nothing that a manifest says; name columns of {', '.join(get_args(ManifestColumn))}"
            )
        return columns

    @model_validator(mode="after")
    def _names_calls_once(self) -> Self:
        if self.root is not None and self.manifest is not None:
            raise ValueError("root and manifest both say which calls there are: give one of them")
        return self


Layers = Literal["last", "all"] | Annotated[list[Annotated[int, Field(ge=0, le=1000)]], Field(min_length=1)]
"""`last`, `all`, or numbers as transformers' `hidden_states` count them: 0 is what goes into the first layer."""


def _check_layers(layers: Layers, name: str, built_in: str) -> None:
    if isinstance(layers, list) and layers != sorted(set(layers)):
        raise ValueError(f"layers must rise, none twice, but got {layers}")
    if layers != "last" and name == built_in:
        raise ValueError(f"layers {layers} need an encoder of layers, but name is {name}: set it to last")


class AudioEncoderConfig(Section, role=Role.EMBEDDING):
    name: str = BUILT_IN_AUDIO
    """`spectral` (built in, no download), or a Hugging Face model name or folder."""
    revision: str | None = None
    """Hugging Face revision (branch, tag or commit); null is the repository's default."""
    layers: Layers = "last"
    """Whose hidden states are kept, side by side in a row: the last layer's, those of all, or of some: [6, 9]; 0 is what goes
    into the first layer. A row is so many times as wide."""
    pooling: Literal["mean", "mean_std", "cls"] = "mean"
    """How frames become one vector: mean over time, mean and standard deviation side by side, or the first token (AST)."""
    window_sec: Annotated[float, Field(ge=0.5, le=600.0)] | None = 8.0
    """Longest stretch that a transformer hears at once, in seconds; null is the whole call, as in the recipes."""
    peak_normalize: bool = True
    """Scale each waveform to a peak of 1 before encoding."""
    l2_normalize: bool = True
    """Scale each embedding to unit length."""
    batch_size: Annotated[PositiveInt | None, Role.SPEED] = None
    """Windows in one forward pass; null is 8 on a CPU and 64 on a GPU."""
    dtype: Dtype = "auto"
    """Arithmetic of the encoder; auto is the fastest that is float32's but for rounding: bfloat16 where the processor gains by
    it (GPUs since Ampere, CPUs with AMX), else float16 on GPUs and float32 on CPUs. int8 (CPU only) is for CPUs without AMX."""

    @field_validator("name")
    @classmethod
    def _encodes_audio(cls, name: str) -> str:
        if name == BUILT_IN_TEXT:
            raise ValueError(f"{name} is the built-in text encoder; the built-in audio encoder is {BUILT_IN_AUDIO}")
        return name

    @model_validator(mode="after")
    def _has_layers(self) -> Self:
        _check_layers(self.layers, self.name, BUILT_IN_AUDIO)
        return self


class TextEncoderConfig(Section, role=Role.EMBEDDING):
    name: str = BUILT_IN_TEXT
    """`hashing` (built in, no download), or a Hugging Face model name or folder."""
    revision: str | None = None
    """Hugging Face revision (branch, tag or commit); null is the repository's default."""
    layers: Layers = "last"
    """Whose hidden states are kept, as of audio_encoder.layers."""
    pooling: Literal["cls", "mean", "last", "auto"] = "cls"
    """How tokens become one vector: the first token, the mean over the tokens, or the last token (of a decoder); auto is what
    a sentence-transformers model says of itself, its limit of tokens included."""
    layer_norm: bool = True
    """Apply a layer norm without affine parameters to the pooled vector."""
    l2_normalize: bool = True
    """Scale each embedding to unit length."""
    max_tokens: Annotated[int, Field(ge=8, le=8192)] = 384
    """Longest text that the encoder reads at once, in tokens."""
    overflow: Literal["truncate", "window"] = "truncate"
    """Longer texts are cut, as in the recipe, which extract.json counts; or read in windows whose vectors are averaged."""
    batch_size: Annotated[PositiveInt, Role.SPEED] = 32
    """Texts in one forward pass."""
    dtype: Dtype = "auto"
    """Arithmetic of the encoder; auto is the fastest that is float32's but for rounding: bfloat16 where the processor gains by
    it (GPUs since Ampere, CPUs with AMX), else float16 on GPUs and float32 on CPUs. int8 (CPU only) is for CPUs without AMX."""
    hashing_dim: Annotated[int, Field(ge=16, le=8192)] = 512
    """Width of the hashing encoder's embedding."""

    @field_validator("name")
    @classmethod
    def _encodes_text(cls, name: str) -> str:
        if name == BUILT_IN_AUDIO:
            raise ValueError(f"{name} is the built-in audio encoder; the built-in text encoder is {BUILT_IN_TEXT}")
        return name

    @model_validator(mode="after")
    def _has_layers(self) -> Self:
        _check_layers(self.layers, self.name, BUILT_IN_TEXT)
        return self


class TranscriberConfig(Section, role=Role.EMBEDDING):
    name: str | None = None
    """Hugging Face name or folder of a speech recognizer, CTC (wav2vec2, HuBERT, ...) or Whisper; null is none."""
    revision: str | None = None
    """Hugging Face revision (branch, tag or commit); null is the repository's default."""
    use: Literal["never", "missing", "always"] = "missing"
    """Which calls it writes down: those without words, or all, so that training reads what predict will read."""
    window_sec: Annotated[float, Field(ge=2.0, le=120.0)] = 20.0
    """Longest stretch that it hears at once, in seconds; of Whisper 30 at most."""
    overlap_sec: Annotated[float, Field(ge=0.0, le=30.0)] = 4.0
    """What CTC windows share, of which each decides its half; how far before its end a Whisper window looks for a pause to end
    in; in seconds."""
    language: str | None = "ko"
    """Language that a Whisper of several languages writes; null lets it guess, window by window. CTC models know one."""
    batch_size: Annotated[PositiveInt | None, Role.SPEED] = None
    """Windows in one forward pass; null is 4 on a CPU and 16 on a GPU."""
    dtype: Dtype = "auto"
    """Its arithmetic, as of the encoders."""

    @property
    def used_for(self) -> Literal["never", "missing", "always"]:
        """`use`, or never where there is none."""
        return "never" if self.name is None else self.use

    @property
    def is_used(self) -> bool:
        """Whether there is one, and it has something to do."""
        return self.used_for != "never"

    @model_validator(mode="after")
    def _can_do_what_it_should(self) -> Self:
        if self.use == "always" and self.name is None:
            raise ValueError("use: always needs a name: the Hugging Face name or folder of a speech recognizer")
        if self.overlap_sec > self.window_sec / 2:
            raise ValueError(
                f"overlap_sec: must be at most half of window_sec, {self.window_sec / 2:g}, but got {self.overlap_sec:g}"
            )
        return self


class ExtractConfig(Section, role=Role.SPEED):
    rows_per_block: PositiveInt = 32
    """Calls in one Ray Data block, the unit of parallel work and of writing."""
    batch_size: PositiveInt = 8
    """Calls handed to an encoder actor at once."""
    decode_cpus: Annotated[float, Field(gt=0.0, le=64.0)] = 0.25
    """Logical CPUs of one decode task."""
    num_audio_encoders: PositiveInt | None = None
    """Audio encoder actors; null is one per GPU, or what fits the CPUs."""
    num_text_encoders: PositiveInt | None = None
    """Text encoder actors; null is one per GPU, or one for four audio encoders."""
    num_transcribers: PositiveInt | None = None
    """Transcriber actors; null is one per GPU, or what fits the CPUs."""
    use_gpu: bool | None = None
    """Run the encoders and the transcriber on GPUs; null uses them where the cluster has some."""
