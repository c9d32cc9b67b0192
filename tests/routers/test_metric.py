"""The metric and the Gaussians: against plain densities, and what an expert that joins changes."""

import math
from math import inf, nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributions import MultivariateNormal

from routers.metric import FARTHEST, Densities, Gaussian, Metric

WIDTH = 6
STORED = Metric.of(
    torch.eye(3, WIDTH, dtype=torch.float64), torch.eye(WIDTH, dtype=torch.float64)
).tensors()


def spd(rng: torch.Generator, width: int = WIDTH) -> torch.Tensor:
    """A covariance that is neither round nor nearly flat."""
    root = torch.randn(width, 2 * width, generator=rng, dtype=torch.float64)
    return 0.01 * root @ root.T / width


def plain(metric_covariance, centre, inputs, seen, x):
    """The log-density by the book: N(mean, covariance + sum of squares), a finite mean told."""
    spread = inputs[1:].double()
    width = len(centre)
    shrunk = 0.997 * metric_covariance + 0.003 * metric_covariance.diagonal().mean() * torch.eye(
        width, dtype=torch.float64
    )
    normal = MultivariateNormal(inputs[0].double(), shrunk + spread.T @ spread)
    return float(normal.log_prob(x.double())) + 0.5 * width / seen


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(0, 3))
def test_densities_are_those_of_plain_gaussians(seed, experts, spreads):
    """Relative to the best; within what half precision and 8-bit directions leave."""
    rng = torch.Generator().manual_seed(seed)
    covariance, centre = spd(rng), 0.1 * torch.randn(WIDTH, generator=rng, dtype=torch.float64)
    metric = Metric.of(centre[None], covariance)
    told = [
        torch.cat([
            (centre + 0.2 * torch.randn(WIDTH, generator=rng, dtype=torch.float64))[None].float(),
            0.1 * torch.randn(spreads, WIDTH, generator=rng),
        ])
        for _ in range(experts)
    ]  # fmt: skip
    seen = [10 + 7 * i for i in range(experts)]
    x = (centre + 0.2 * torch.randn(WIDTH, generator=rng, dtype=torch.float64)).float()
    found = Densities([metric.gaussian(t, n) for t, n in zip(told, seen, strict=True)])
    density_E = found.of(metric.whiten(x))
    expected_E = torch.tensor(
        [plain(covariance, centre, t, n, x) for t, n in zip(told, seen, strict=True)]
    )
    assert density_E is not None
    torch.testing.assert_close(
        density_E - density_E.max(), (expected_E - expected_E.max()).float(), rtol=0.03, atol=0.15
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 9))
def test_the_background_is_the_gaussian_of_inputs_of_any_task(seed, tasks):
    """Around the mean of means, as wide as a task and as tasks lie apart; like an expert's own."""
    rng = torch.Generator().manual_seed(seed)
    covariance = spd(rng)
    means = 0.3 * torch.randn(tasks, WIDTH, generator=rng, dtype=torch.float64)
    metric = Metric.of(means, covariance)
    centre = means.mean(dim=0)
    between = torch.cov(means.T, correction=0) if tasks > 1 else torch.zeros(WIDTH, WIDTH)
    root = torch.linalg.cholesky(between + 1e-12 * torch.eye(WIDTH)).T
    told = torch.cat([centre[None].float(), 0.1 * torch.randn(1, WIDTH, generator=rng)])
    x = (centre + 0.2 * torch.randn(WIDTH, generator=rng, dtype=torch.float64)).float()
    white = metric.whiten(x)
    density_E = Densities([metric.gaussian(told, 30)]).of(white, metric.background(white))
    assert density_E is not None
    wide = plain(covariance, centre, torch.cat([centre[None], root]), math.inf, x)
    expected = plain(covariance, centre, told, 30, x) - wide
    assert float(density_E[0]) == pytest.approx(expected, rel=0.03, abs=0.15)


def one_by_one(metric, inputs_PF, seen):
    """The slow twin: one expert's mean, turn and offset, before they are rounded."""
    mean_F = metric.whiten(inputs_PF[0])
    V_RF = (inputs_PF[1:].float() @ metric.whitening_FF).double()
    inside_RR = torch.eye(len(V_RF), dtype=torch.float64) + V_RF @ V_RF.T
    value_R, vector_RR = torch.linalg.eigh(inside_RR)
    turn_RF = vector_RR @ torch.diag(value_R.rsqrt()) @ vector_RR.T @ V_RF
    offset = 0.5 * (WIDTH / max(1, seen) - float(torch.logdet(inside_RR)))
    return mean_F, turn_RF.float(), offset


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=7),
    st.sampled_from([0.0, 1e-3, 0.1, 10.0]),
)
def test_many_at_once_are_those_of_one_at_a_time(seed, told, length):
    """Whatever their numbers of directions, in their order; within one step of the rounding."""
    rng = torch.Generator().manual_seed(seed)
    metric = Metric.of(torch.zeros(1, WIDTH, dtype=torch.float64), spd(rng))
    inputs = [
        torch.cat([0.2 * torch.randn(1, WIDTH, generator=rng),
                   length * torch.randn(rows, WIDTH, generator=rng)])
        for _, rows in told
    ]  # fmt: skip
    seen = [n for n, _ in told]
    found = metric.gaussians(inputs, seen)
    assert len(found) == len(told)
    for gaussian, inputs_PF, n in zip(found, inputs, seen, strict=True):
        mean_F, turn_RF, offset = one_by_one(metric, inputs_PF, n)
        rows = len(turn_RF)
        scale_R = gaussian.figures[1 : 1 + rows]
        turned_RF = gaussian.turn.float().view(rows, WIDTH) * scale_R[:, None]
        torch.testing.assert_close(gaussian.mean.float(), mean_F, rtol=2**-10, atol=1e-6)
        torch.testing.assert_close(float(gaussian.figures[0]), offset, rtol=1e-5, atol=1e-5)
        if rows:
            torch.testing.assert_close(
                scale_R, turn_RF.abs().amax(dim=1) / 127, atol=1e-6, rtol=0.01
            )
            assert float(((turned_RF - turn_RF) / scale_R[:, None]).abs().max()) < 1.01
        alone = metric.gaussian(inputs_PF, n)
        torch.testing.assert_close(gaussian.figures, alone.figures, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("width", "rows"), [(6, 0), (6, 3), (7, 2), (8, 1)])
def test_what_is_packed_is_read_again_and_lies_in_fours(width, rows):
    rng = torch.Generator().manual_seed(3)
    mean_KF = torch.randn(4, width, generator=rng)
    turn_KRF = torch.randn(4, rows, width, generator=rng)
    offset_K = torch.randn(4, generator=rng)
    packed = Gaussian.pack(mean_KF, turn_KRF, offset_K)
    assert packed.packed.shape[1] % 4 == 0
    again = Gaussian.stack(packed.unbind())
    assert torch.equal(again.packed, packed.packed)
    assert torch.equal(again.mean, mean_KF.half())
    offset_K1, scale_KR, along_KR = again.figures.split([1, rows, rows], dim=1)
    assert torch.equal(offset_K1[:, 0], offset_K)
    small_KRF = again.turn.float().view(4, rows, width) * scale_KR[..., None]
    torch.testing.assert_close(small_KRF, turn_KRF, rtol=0, atol=0.03)
    torch.testing.assert_close(along_KR, (small_KRF @ mean_KF.half().float()[..., None])[..., 0])


def test_experts_with_other_numbers_of_directions_are_compared_in_their_order():
    rng = torch.Generator().manual_seed(4)
    metric = Metric.of(torch.zeros(1, WIDTH, dtype=torch.float64), spd(rng))
    told = [0.2 * torch.randn(rows, WIDTH, generator=rng) for rows in (3, 1, 4, 3)]
    gaussians = metric.gaussians(told, [50, 60, 70, 80])
    white = metric.whiten(0.2 * torch.randn(WIDTH, generator=rng))
    density_E = Densities([*gaussians[:2], None, *gaussians[2:]]).of(white)
    assert density_E is not None
    assert density_E[2] == FARTHEST
    for e, gaussian in zip((1, 3, 4), gaussians[1:], strict=True):
        pair = Densities([gaussians[0], gaussian]).of(white)
        assert pair is not None
        torch.testing.assert_close(pair[1] - pair[0], density_E[e] - density_E[0])


def test_whitened_inputs_of_a_task_have_unit_variance():
    rng = torch.Generator().manual_seed(0)
    covariance = spd(rng)
    sample = MultivariateNormal(torch.zeros(WIDTH, dtype=torch.float64), covariance).sample((9000,))
    white = Metric.of(torch.zeros(1, WIDTH, dtype=torch.float64), covariance).whiten(sample.float())
    torch.testing.assert_close(torch.cov(white.T), torch.eye(WIDTH), rtol=0, atol=0.1)


def test_an_expert_that_joins_changes_no_others_density():
    rng = torch.Generator().manual_seed(1)
    metric = Metric.of(torch.zeros(1, WIDTH, dtype=torch.float64), spd(rng))
    told = [0.2 * torch.randn(3, WIDTH, generator=rng) for _ in range(5)]
    gaussians = [metric.gaussian(t, 50) for t in told]
    white = metric.whiten(0.2 * torch.randn(WIDTH, generator=rng))
    few, all_of = Densities(gaussians[:3]).of(white), Densities(gaussians).of(white)
    assert few is not None
    assert all_of is not None
    torch.testing.assert_close(few - few[0], all_of[:3] - all_of[0], rtol=1e-5, atol=1e-4)


def test_who_is_not_known_stands_farthest_and_nobody_known_is_none():
    rng = torch.Generator().manual_seed(2)
    metric = Metric.of(torch.zeros(1, WIDTH, dtype=torch.float64), spd(rng))
    one = metric.gaussian(torch.zeros(1, WIDTH), 10)
    far = metric.gaussian(torch.full((1, WIDTH), 500.0), 10)
    density_E = Densities([None, one, far]).of(metric.whiten(torch.zeros(WIDTH)))
    assert density_E is not None
    assert density_E.tolist() == [FARTHEST, pytest.approx(0.3, abs=0.1), FARTHEST + 1]
    assert Densities([None, None]).of(torch.zeros(WIDTH)) is None
    assert Densities([]).of(torch.zeros(WIDTH)) is None


def test_a_mean_of_few_inputs_is_not_held_against_an_expert():
    """The mean of n inputs is off by 1/n of their variance in each direction: 6/2 here."""
    metric = Metric.of(torch.zeros(1, WIDTH, dtype=torch.float64), spd(torch.Generator()))
    inputs = torch.zeros(1, WIDTH)
    few, many = metric.gaussian(inputs, 2), metric.gaussian(inputs, 6000)
    assert float(few.figures[0] - many.figures[0]) == pytest.approx(0.5 * WIDTH / 2, abs=1e-3)


def test_a_metric_is_stored_in_half_precision_and_read_again():
    means = torch.randn(3, WIDTH, generator=torch.Generator(), dtype=torch.float64)
    metric = Metric.of(means, spd(torch.Generator()))
    tensors = metric.tensors()
    assert sum(t.numel() for t in tensors.values()) == 3 * WIDTH + WIDTH * (WIDTH + 1) // 2
    again = Metric.from_tensors(tensors, WIDTH)
    assert again is not None
    torch.testing.assert_close(again.whitening_FF, metric.whitening_FF, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(again.centre_F, metric.centre_F, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(again.between_RF, metric.between_RF, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "tensors",
    [
        {},
        {"input_centre": torch.zeros(WIDTH)},
        {"input_centre": torch.zeros(4), "input_whitening": torch.zeros(10)},
        {"input_centre": torch.zeros(WIDTH), "input_whitening": torch.zeros(10)},
        {"input_centre": torch.zeros(WIDTH), "input_whitening": torch.zeros(21)},
        {**STORED, "input_between": torch.zeros(2, 4)},
        {**STORED, "input_whitening": torch.full((10,), 1.0)},
        *({**STORED, n: torch.full_like(STORED[n], bad)} for n in STORED for bad in (nan, inf)),
    ],
)
def test_what_is_no_metric_of_this_backbone_is_none(tensors):
    assert Metric.from_tensors(tensors, WIDTH) is None
