"""A row of history.json: an epoch of a training, as figures."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class EpochRow(BaseModel):
    """Keys that are not known here are passed over when a file is read: a newer version may write more.

    Attributes:
        modalities: which model, as `model.modalities` names them.
        member: which of its members, where it is an ensemble.
        epoch: from 1.
        train_loss: the mean over the steps, of the loss that was trained on.
        val_loss: urgency's mean negative log-likelihood.
        val_sentiment_macro_f1, val_sentiment_accuracy: None where sentiment is not learnt or no row of val has one.
        val_score: what the best epoch is picked by.
        learning_rate: at the beginning of the epoch.
        seconds: what it took.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    modalities: str
    member: str | None = None
    epoch: int
    train_loss: float
    val_loss: float
    val_macro_f1: float
    val_accuracy: float
    val_sentiment_macro_f1: float | None = None
    val_sentiment_accuracy: float | None = None
    val_score: float
    learning_rate: float
    seconds: float
