"""The page says what was measured and simulated, and its links lead somewhere."""

import pytest

from benchmarks.capacity import page, plan
from benchmarks.capacity.costs import Costs, Step
from benchmarks.figures import at_most

COSTS = Costs(request=0.002, batch=0.006, sample=0.009, load=0.01)
ALONE = Step(1, rate=58.8, mean_ms=17.0, p50_ms=17.0, p99_ms=19.0, batch=1, engine=0.015, cpu=0.017)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(plan, "SECONDS", 20.0)


def test_a_step_stands_beside_what_the_simulation_has_for_it():
    (found,) = plan.compared(COSTS, [ALONE])
    assert found.rate_off < 0.01
    assert found.p50_off < 0.01


def test_random_arrivals_are_simulated_at_their_times():
    """Two that come at one time are one batch."""
    pairs = [second + late for second in range(100) for late in (0.0, 0.0001)]
    step = Step(0, rate=2.0, mean_ms=17.0, p50_ms=17.0, p99_ms=27.0, batch=2, engine=0.024,
                cpu=COSTS.per_request(batch=2), arrivals=pairs)  # fmt: skip
    (found,) = plan.compared(COSTS, [step])
    assert found.rate == pytest.approx(2.0, rel=0.05)
    assert found.mean_ms == pytest.approx(28.0, abs=1.0)  # 2 + 6 + 2 * 9, and the answers


def test_a_slow_minute_is_told_by_the_cpu_that_requests_took():
    alone = [float(second) for second in range(100)]
    step = Step(0, rate=1.0, mean_ms=34.0, p50_ms=34.0, p99_ms=34.0, batch=1, engine=0.03,
                cpu=0.034, arrivals=alone)  # fmt: skip
    (found,) = plan.compared(COSTS, [step])
    assert found.speed == pytest.approx(0.5)
    assert found.mean_off < 0.01
    assert found.foretold_ms == pytest.approx(17.0)


def test_more_load_and_more_experts_take_more_replicas(monkeypatch):
    monkeypatch.setattr(plan, "RATES", (20, 200))
    monkeypatch.setattr(plan, "LIBRARIES", (18, 300))
    monkeypatch.setattr(plan, "MANY", 200)
    monkeypatch.setattr(plan, "HELD", 30)
    loads = list(plan.by_rate(COSTS))
    assert [p.replicas for p in loads] == [1, 4]
    few, anywhere, held = plan.by_experts(COSTS)
    assert few.misses == 0
    assert anywhere.misses > held.misses
    assert anywhere.replicas >= held.replicas >= few.replicas


def test_the_page_has_a_row_for_each_and_its_picture(tmp_path):
    curve = plan.compared(COSTS, [ALONE])
    planned = plan.Planned(1000, 18, "fewer", 16, 0.0, 40.0, 41.0, 39.0, 99.0)
    figures = [at_most("off", 3.0, 15.0)]
    written = page.write(tmp_path / "capacity.md", COSTS, curve, [planned], [planned], figures)
    assert [path.name for path in written] == ["capacity.md", "capacity-node.png"]
    assert all(path.stat().st_size for path in written)
    text = (tmp_path / "capacity.md").read_text("utf-8")
    assert "| 1 at once | 1.00 | 58.8 |" in text
    assert "| 1,000 | 16 | 40 | 41 | 39 | 99 |" in text
    assert "| 18 | the one of two with fewer | 0.0000 | 16 |" in text
    assert "| off | 3 | <= 15 | yes |" in text
