from typing import Any

import pytest
import torch
from torch import nn

from urgency_ray.model.layers import FewTokensLayer, SixteenBitDropout


def test_dropout_drops_its_share_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropout, values = SixteenBitDropout(0.3).train(), torch.ones(400, 500)
    dropped = dropout(values)
    # Of 200,000 draws the share deviates by 0.001, the mean of the rest makes up for it.
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.005)
    assert dropped[dropped > 0].unique().tolist() == pytest.approx([1 / 0.7], abs=1e-4)
    # Neighbours out of one 64-bit draw are independent: each of the four places, and each pair of them.
    places = (dropped.flatten().view(-1, 4) == 0).float()
    assert places.mean(0).tolist() == pytest.approx([0.3] * 4, abs=0.01)
    assert torch.corrcoef(places.T).fill_diagonal_(0).abs().max() < 0.02


def test_dropout_follows_the_seed_and_rests_in_evaluation() -> None:
    dropout, values = SixteenBitDropout(0.5), torch.randn(7, 13)
    first, second = ((torch.manual_seed(3), dropout.train()(values))[1] for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, dropout(values))
    assert torch.equal(dropout.eval()(values), values)


def test_gradients_pass_where_values_do() -> None:
    torch.manual_seed(0)
    values = torch.randn(50, 3, requires_grad=True)
    dropped = SixteenBitDropout(0.4).train()(values)
    dropped.sum().backward()
    assert values.grad is not None
    assert torch.equal(values.grad == 0, dropped == 0)
    torch.testing.assert_close(values.grad * values, dropped)


@pytest.mark.parametrize(
    "mask",
    [
        {"src_mask": torch.zeros(2, 2, dtype=torch.bool)},
        {"src_key_padding_mask": torch.zeros(6, 2, dtype=torch.bool)},
        {"is_causal": True},
    ],
)
def test_the_layer_refuses_a_mask(mask: Any) -> None:
    with pytest.raises(ValueError, match="takes no mask"):
        FewTokensLayer(24, 4, 48, dropout=0.0)(torch.randn(6, 2, 24), **mask)


def test_torch_s_encoder_takes_the_layer_and_hands_it_masks() -> None:
    encoder = nn.TransformerEncoder(FewTokensLayer(24, 4, 48, dropout=0.0), 2, enable_nested_tensor=False)
    tokens = torch.randn(6, 2, 24)
    first, second = encoder.layers
    torch.testing.assert_close(encoder(tokens), second(first(tokens)))
    with pytest.raises(ValueError, match="takes no mask"):
        encoder(tokens, src_key_padding_mask=torch.zeros(6, 2, dtype=torch.bool))
    with pytest.raises(ValueError, match="takes no mask"):
        encoder(tokens, mask=nn.Transformer.generate_square_subsequent_mask(2))


@pytest.mark.parametrize("num_tokens", [1, 2, 5])
def test_the_layer_is_that_of_torch(num_tokens: int) -> None:
    torch.manual_seed(0)
    ours = FewTokensLayer(24, 4, 48, dropout=0.0).train()
    theirs = nn.TransformerEncoderLayer(24, 4, 48, 0.0, activation="gelu", batch_first=True).train()
    theirs.load_state_dict(ours.state_dict())
    tokens = torch.randn(6, num_tokens, 24)
    inputs = [tokens.clone().requires_grad_() for _ in range(2)]
    outputs = [layer(part) for layer, part in zip((ours, theirs), inputs, strict=True)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    for output in outputs:
        output.square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, atol=1e-4, rtol=1e-4)
    for (name, weight), (_, other) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad, atol=1e-4, rtol=1e-4, msg=name)
