"""The knobs of training: splits, the classifier, its loss, the sampler and the loop."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from urgency_ray.config.tree import Cpus, Folds, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt, Role, Section, Seed


class SplitConfig(Section, role=Role.SETUP):
    seed: Seed = 0
    """Seed of the split; the split is a pure function of the rows and this number."""
    val_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the calls that picks the best epoch and the best trial."""
    test_fraction: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.1
    """Share of the calls that is scored once, where the provider's Validation part does not serve as the test split."""
    use_provider_test: bool = True
    """Take the provider's Validation archives as the test split when present; of a manifest with test rows, those, and its val
    rows as the val split."""
    group_by: Literal["speaker", "group"] | None = None
    """Also keep on one side of each split all rows of one speaker, or one group, as a manifest names them."""
    allow_missing_classes: bool = False
    """Go on when an urgency class has no rows in a split."""

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> Self:
        if self.val_fraction + self.test_fraction >= 1.0:
            raise ValueError("val_fraction + test_fraction must be below 1")
        return self


class ModelConfig(Section, role=Role.RECIPE):
    name: Literal["cross_attention", "concat", "cross_modal", "hierarchical", "linear", "discriminant", "stacked"] = (
        "cross_attention"
    )
    """UrgencySense's transformer over both modalities, plain concatenation, UrgencyDetect's text-queries-audio attention,
    UrgencySense's transformer over each utterance of a call and attention over the utterances (wants data.unit utterance), or
    what is fitted at once to the standardised inputs: logistic regression, as scikit-learn does it; discriminant analysis, its
    covariance shrunken; or, stacked, discriminant analysis of each modality and a smooth surface over its scores."""
    modalities: Literal["fused", "audio", "text"] = "fused"
    """What the classifier may use; audio and text alone run through the same trunk."""
    standardize_embeddings: bool = False
    """Standardise each embedding dimension with the training split's statistics; wanted by the built-in encoders."""
    acoustic_features: bool = True
    """Append the five acoustic features, standardised with the training split's statistics, to the audio embedding."""
    audio_layers: Literal["weighted", "mean", "last"] = "weighted"
    """What becomes of several layers of the audio encoder in a row (audio_encoder.layers): their mean with learned weights, a
    softmax over the layers; their plain mean, as a linear model always takes them; or the last of them alone."""
    text_layers: Literal["weighted", "mean", "last"] = "weighted"
    """What becomes of several layers of the text encoder, likewise."""
    hidden_dim: Annotated[int, Field(ge=8, le=8192)] = 768
    """Width of each modality's token."""
    num_layers: Annotated[int, Field(ge=1, le=48)] = 3
    """Transformer encoder layers over the tokens."""
    num_heads: Annotated[int, Field(ge=1, le=64)] = 8
    """Attention heads; must divide hidden_dim."""
    feedforward_dim: Annotated[int, Field(ge=8, le=32768)] = 2048
    """Width of the transformer's feed-forward layers."""
    dropout: Fraction = 0.4
    """Dropout of the projections and of the head."""
    encoder_dropout: Fraction = 0.2
    """Dropout inside the transformer."""
    head_dim: Annotated[int, Field(ge=4, le=8192)] | None = 512
    """Width of the classification head's hidden layer; null classifies what the trunk gives: with concat, the evidence of
    audio and that of text then add up."""
    urgency_head: Literal["softmax", "corn"] = "softmax"
    """A logit for each urgency class, or CORN's conditional logits of being more urgent than each class but the last."""
    text_encoder: Annotated[str | None, Role.SETUP] = None
    """Hugging Face model name or folder to train on the transcripts, inside a cross_modal classifier that takes its width
    (UrgencyDetect's); null takes the run's text embeddings."""
    text_encoder_revision: Annotated[str | None, Role.SETUP] = None
    """Hugging Face revision (branch, tag or commit) of text_encoder; null is the repository's default."""
    max_tokens: Annotated[int, Field(ge=8, le=8192), Role.SETUP] = 512
    """Longest text that text_encoder reads, in tokens; what is cut is counted in the log."""
    trainable_layers: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Last layers of text_encoder that are trained, the rest of it frozen and without dropout; null trains all of it."""
    gradient_checkpointing: Annotated[bool, Role.SPEED] = False
    """Compute text_encoder's activations again in the backward pass: less memory, about a third more time."""

    @property
    def is_linear(self) -> bool:
        """Whether there is nothing between the standardised inputs and the logits."""
        return self.name in ("linear", "discriminant")

    @property
    def is_fitted(self) -> bool:
        """Whether it is fitted at once, to urgency alone, and not trained in epochs."""
        return self.is_linear or self.name == "stacked"

    @property
    def standardizes(self) -> bool:
        """Whether the embeddings' size does not matter: what is fitted at once always takes them standardised."""
        return self.standardize_embeddings or self.is_fitted

    @model_validator(mode="after")
    def _encoder_has_its_trunk(self) -> Self:
        if self.text_encoder is not None and self.name != "cross_modal":
            raise ValueError(f"text_encoder {self.text_encoder} needs name cross_modal but got name {self.name}")
        needy = ("text_encoder_revision", "trainable_layers", "gradient_checkpointing")
        unmet = [name for name in needy if getattr(self, name) not in (None, False)]
        if self.text_encoder is None and unmet:
            raise ValueError(f"{unmet[0]} needs text_encoder, the model that it is about, but that is null")
        return self

    @model_validator(mode="after")
    def _fitted_has_one_head(self) -> Self:
        if self.is_fitted and self.urgency_head != "softmax":
            raise ValueError(f"urgency_head {self.urgency_head} needs a trunk, but name is {self.name}: set it to softmax")
        return self

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        # A text encoder brings its own width, which is checked once it is loaded.
        if self.text_encoder is None and self.hidden_dim % self.num_heads:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be a multiple of num_heads {self.num_heads}")
        return self


class LossConfig(Section, role=Role.RECIPE):
    mode: Literal["stochastic", "expected"] = "stochastic"
    """Draw one of the losses at each step with the weights as probabilities, or take their weighted sum."""
    kl_weight: NonNegativeFloat = 0.25
    """Weight of the KL divergence to ordinal soft labels."""
    focal_weight: NonNegativeFloat = 0.40
    """Weight of the ordinal focal loss."""
    cross_entropy_weight: NonNegativeFloat = 0.35
    """Weight of the class-weighted cross-entropy."""
    corn_weight: NonNegativeFloat = 0.0
    """Weight of CORN's conditional binary cross-entropies; needs model.urgency_head corn."""
    emd_weight: NonNegativeFloat = 0.0
    """Weight of the squared earth mover's distance, which punishes by distance as quadratic kappa does."""
    focal_gamma: NonNegativeFloat = 2.0
    """Exponent of the focal loss."""
    soft_label_mass: Fraction = 0.2
    """Probability mass that ordinal soft labels move to the neighbouring classes."""
    class_weights: Literal["balanced", "none"] = "balanced"
    """Class weights of the focal loss and the cross-entropy: N / (3 n_c) over the training split, or 1."""
    sentiment_weight: Fraction = 0.0
    """Share of a second head's class-weighted cross-entropy on the caller's sentiment; 0 builds no such head."""

    @model_validator(mode="after")
    def _weighs_something(self) -> Self:
        if self.kl_weight + self.focal_weight + self.cross_entropy_weight + self.corn_weight + self.emd_weight <= 0:
            raise ValueError("one of kl_weight, focal_weight, cross_entropy_weight, corn_weight, emd_weight must be above 0")
        return self


class SamplerConfig(Section, role=Role.RECIPE):
    name: Literal["weighted", "none"] = "weighted"
    """Draw rows with replacement by class weight, or shuffle and visit each once."""
    power: Annotated[float, Field(ge=0.0, le=1.0)] = 0.5
    """Weight of a class is (N / (3 n_c)) ** power: 0 is uniform, 1 inverse frequency."""


class TrainConfig(Section):
    epochs: Annotated[int, Field(ge=1, le=100_000), Role.SETUP] = 50
    """Most epochs to train."""
    batch_size: Annotated[PositiveInt, Role.RECIPE] = 32
    """Rows per step and worker."""
    learning_rate: Annotated[PositiveFloat, Role.RECIPE] = 3e-5
    """Peak learning rate of AdamW."""
    weight_decay: Annotated[NonNegativeFloat, Role.RECIPE] = 0.01
    """Decoupled weight decay of AdamW."""
    schedule: Annotated[Literal["cosine_warm_restarts", "cosine", "constant"], Role.RECIPE] = "cosine_warm_restarts"
    """Learning rate schedule, stepped each epoch."""
    restart_epochs: Annotated[PositiveInt, Role.RECIPE] = 10
    """T_0 of the warm restarts, in epochs."""
    restart_factor: Annotated[PositiveInt, Role.RECIPE] = 2
    """T_mult of the warm restarts."""
    min_learning_rate: Annotated[NonNegativeFloat, Role.RECIPE] = 0.0
    """Floor of the cosine schedules (eta_min)."""
    linear_c: Annotated[PositiveFloat | None, Role.RECIPE] = None
    """Inverse strength of a linear model's ridge penalty (scikit-learn's C); null chooses it by grouped cross-validation."""
    shrinkage: Annotated[Annotated[float, Field(gt=0.0, le=1.0)] | None, Role.RECIPE] = None
    """Share of the mean variance in the covariance of a discriminant or stacked model; null chooses it by grouped
    cross-validation."""
    early_stop_epochs: Annotated[PositiveInt | None, Role.RECIPE] = 10
    """Stop after this many epochs without a better one by select_by; null never stops early."""
    clip_norm: Annotated[PositiveFloat | None, Role.RECIPE] = 1.0
    """Largest gradient norm; null does not clip."""
    num_workers: Annotated[PositiveInt | None, Role.SETUP] = None
    """Ray Train workers. They share the batches of a model; the members of an ensemble, where they are as many, are dealt out
    instead, and become what one worker would make of them. Null is one: on the CPUs of a machine of one's own the command
    itself, by Ray Train's local mode, which need not start first."""
    cpus_per_worker: Annotated[Cpus | None, Role.SPEED] = None
    """Logical CPUs, and threads, of one worker; null shares the cluster's CPUs among the workers."""
    use_gpu: Annotated[bool | None, Role.SPEED] = None
    """Train on GPUs; null uses them where the cluster has one for each worker."""
    max_failures: Annotated[int, Field(ge=0), Role.SPEED] = 1
    """Times that a group of workers is restarted from its last checkpoint before the run fails."""
    checkpoint_epochs: Annotated[PositiveInt, Role.SPEED] = 5
    """A checkpoint is written every so many epochs, at the end, and, where the last is some seconds old, when an epoch is the
    best by select_by."""
    keep_checkpoints: Annotated[PositiveInt, Role.SPEED] = 1
    """Checkpoints kept, the latest ones; each also holds the best epoch's weights."""
    select_by: Annotated[Literal["urgency_macro_f1", "mean_of_tasks", "urgency_likelihood"], Role.RECIPE] = "urgency_macro_f1"
    """What picks the best epoch on validation: urgency's macro-F1, its mean with sentiment's (UrgencyDetect), or the likelihood
    of urgency's labels (their mean log-probability), which is less a matter of luck where validation is small."""
    precision: Annotated[Literal["auto", "float32", "bfloat16"], Role.RECIPE] = "auto"
    """Arithmetic of the forward pass, by autocast; auto is bfloat16 for a trunk of hidden_dim 256 or more on a CPU with AMX,
    and where a text encoder is trained on a GPU since Ampere; else float32."""
    seed: Annotated[Seed, Role.SETUP] = 0
    """Seed of weights, dropout, sampler and loss draws."""
    ablation: Annotated[bool, Role.REPORT] = False
    """Also train audio-only and text-only models with the same trunk and put all three into metrics.json."""
    members: Annotated[Folds | None, Role.RECIPE] = None
    """Train an ensemble: a model for each of so many folds of train and val, whose probabilities are averaged; the figures of
    val are then those of all these rows, each judged by the members that have not seen it. Null trains one model."""
    linear_member: Annotated[bool, Role.RECIPE] = False
    """Also fit a linear model on each fold of an ensemble; the rows that neither has seen say how much each counts."""
    baselines: Annotated[bool, Role.REPORT] = True
    """Also fit the majority class and linear models on the same rows, in seconds, and say whether the model beats them."""
    discriminant_member: Annotated[bool, Role.RECIPE] = False
    """Likewise a discriminant model."""
    stacked_member: Annotated[bool, Role.RECIPE] = False
    """Likewise a stacked model."""
    folds: Annotated[Folds | None, Role.REPORT] = None
    """Also cross-validate: as many models, each scored on its fold of the rows outside the provider's test; null does not."""
    bootstrap_samples: Annotated[int, Field(ge=100, le=100_000), Role.REPORT] = 1000
    """Resamples behind each 95 % interval."""

    @property
    def group_size(self) -> int:
        """Number of workers: one where `num_workers` is null."""
        return self.num_workers or 1

    @model_validator(mode="after")
    def _members_fit_the_rest(self) -> Self:
        for name in ("linear_member", "discriminant_member", "stacked_member"):
            if getattr(self, name) and self.members is None:
                raise ValueError(f"{name} needs members, whose ensemble it joins, but that is null")
        if self.folds is not None and self.members is not None:
            raise ValueError(
                "folds cross-validates one model, and members is its own cross-validation: set one of them to null"
            )
        return self
