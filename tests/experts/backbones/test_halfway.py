"""A pass that ends half-way gives what a full pass has there, and leaves nothing behind."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from experts.backbones.halfway import HalfWay, lower_half
from experts.backbones.tiny import tiny_encoder


def hook_count(model):
    return sum(len(m._forward_hooks) for m in model.modules())


def twin(encoder, texts):
    """The same features from a full pass, one text at a time: no padding."""
    _, layer = lower_half(encoder.model)
    position = list(encoder.model.encoder.layer).index(layer) + 1
    rows = []
    for row in encoder.tokenize(texts, truncate=True):
        with torch.no_grad():
            states = encoder.model(torch.tensor([row]), output_hidden_states=True).hidden_states
        means = [states[depth][0].mean(dim=0) for depth in (0, position)]
        rows.append(torch.cat([F.normalize(mean, dim=-1) for mean in means]))
    return torch.stack(rows)


def test_features_are_a_full_passs_states_at_the_bottom_and_half_way_up(encoder64, texts):
    """Also in batches, and for a text that is cut."""
    texts = [*texts, "long " * 60]
    feature_BD = encoder64.features(texts)
    torch.testing.assert_close(feature_BD, twin(encoder64, texts), rtol=0, atol=1e-9)
    half_BD = encoder64.halfway(feature_BD)
    assert feature_BD.shape[1] == encoder64.feature_width == 2 * half_BD.shape[1]
    for part_BD in feature_BD.chunk(2, dim=1):
        norm_B = part_BD.norm(dim=1)
        torch.testing.assert_close(norm_B, torch.ones_like(norm_B), rtol=0, atol=1e-12)
    assert not torch.allclose(half_BD, encoder64.embed(texts))


def test_the_work_after_the_middle_is_not_done(texts):
    encoder = tiny_encoder()
    ran: list[int] = []
    for i, layer in enumerate(encoder.model.encoder.layer):
        layer.register_forward_hook(lambda *_, i=i: ran.append(i))
    encoder.features(texts[:1])
    assert ran == [0]


def test_no_hook_stays_and_full_passes_are_as_before(encoder64, texts):
    hooks, before_BD = hook_count(encoder64.model), encoder64.embed(texts)
    encoder64.features(texts)
    assert hook_count(encoder64.model) == hooks
    assert torch.equal(encoder64.embed(texts), before_BD)


def test_features_record_no_gradients(encoder64, texts):
    assert not encoder64.features(texts).requires_grad


def test_an_error_inside_is_raised_and_leaves_the_backbone_usable(texts):
    encoder = tiny_encoder()
    hooks, before_BD = hook_count(encoder.model), encoder.embed(texts)
    too_large = len(encoder.tokenizer) + 5
    with (
        pytest.raises(IndexError),
        encoder.hooks.mixing(None),
        HalfWay(*lower_half(encoder.model)) as half,
    ):
        encoder.model(input_ids=torch.tensor([[too_large]]))
    assert half.states == []
    assert hook_count(encoder.model) == hooks
    assert torch.equal(encoder.embed(texts), before_BD)
    assert len(encoder.features(texts)) == len(before_BD)


@pytest.mark.parametrize(("layers", "expected"), [(2, 0), (3, 0), (4, 1), (6, 2), (12, 5)])
def test_the_lower_half_is_of_the_longest_stack(layers, expected):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = nn.ModuleList([nn.Identity()])
            self.layers = nn.ModuleList([nn.Identity() for _ in range(layers)])

    model = Model()
    assert lower_half(model) == (model.layers[0], model.layers[expected])
