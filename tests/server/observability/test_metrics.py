"""What one trace adds to the metrics, and what they tell of the server and its process."""

import os
import re
from pathlib import Path

import pytest

from routers.types import Chosen, Selection
from server.engine.messages import Cut, Trace
from server.observability.metrics import FALLBACKS, Metrics, fallbacks

CHOSEN = Selection(mode="single", experts=(Chosen(id="mood", weight=1.0),))


@pytest.fixture
def buckets_of():
    """How many of these traces lie in each bucket of a histogram, by its upper bound."""

    def count(name, *traces):
        metrics = Metrics()
        for trace in traces:
            metrics.trace(trace)
        value = metrics.registry.get_sample_value
        name = f"sailplane_routing_{name}"
        found = {}
        for family in metrics.registry.collect():
            if family.name == name:
                found = {
                    s.labels["le"]: s.value for s in family.samples if s.name == f"{name}_bucket"
                }
        assert value(f"{name}_count") == found["+Inf"]
        below = 0.0
        for bound, total in found.items():
            found[bound], below = total - below, total
        return {float(bound): n for bound, n in found.items() if n}

    return count


@pytest.mark.parametrize(
    ("score", "bound"),
    [(-1.0, -0.75), (-0.6, -0.5), (-0.01, 0.0), (0.0, 0.0), (0.55, 0.6), (0.97, 0.98), (1.0, 1.0)],
)
def test_the_best_score_is_counted_whatever_its_sign(buckets_of, score, bound):
    trace = Trace("glider", CHOSEN, top_score=score)
    assert buckets_of("top_score", trace) == {bound: 1}


@pytest.mark.parametrize(
    ("confidence", "bound"),
    [(0.0, 0.05), (0.03, 0.05), (0.499, 0.5), (0.501, 0.6), (0.985, 0.99), (0.995, 1.0)],
)
def test_confidence_is_counted(buckets_of, confidence, bound):
    trace = Trace("sailplane", CHOSEN, confidence=confidence)
    assert buckets_of("confidence", trace) == {bound: 1}


def test_what_has_no_confidence_and_no_candidates_is_not_counted(buckets_of):
    explicit = Trace("explicit", CHOSEN)
    assert buckets_of("confidence", explicit) == {}
    assert buckets_of("top_score", explicit) == {}


def test_what_can_be_counted_stands_at_0_before_it_happens():
    """Prometheus sees no rise to a first sample: an alert would miss the first fault."""
    told = Metrics().render().decode()
    for line in (
        'routing_log_lost_total{reason="not_written"}', 'fits_total{state="failed"}',
        'library_looks_total{state="failed"}', 'routing_fallback_total{reason="no_fit"}',
        'routing_mode_total{mode="base"}',
    ):  # fmt: skip
        assert f"sailplane_{line} 0.0" in told


def test_every_fallback_that_is_told_was_counted_from_0():
    cut = (Cut("input", 9, 5),)
    trace = Trace("glider", CHOSEN, writer_note="x", narrowed=True, truncated=cut, replaced=("e",))
    assert {*fallbacks(trace), "no_expert", "no_fit"} == set(FALLBACKS)


def test_the_process_is_told_of():
    told = Metrics().render().decode()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    resident = float(re.search(r"^process_resident_memory_bytes (\S+)", told, re.M)[1])
    assert resident == pytest.approx(pages * os.sysconf("SC_PAGE_SIZE"), rel=0.2)
    for name in ("cpu_seconds_total", "open_fds", "max_fds", "start_time_seconds"):
        assert re.search(rf"^process_{name} [0-9]", told, re.M), name
    assert re.search("^python_gc_collections_total", told, re.M)


def test_each_app_has_a_registry_of_its_own():
    first, second = Metrics(), Metrics()
    first.fitted("done")
    line = 'sailplane_fits_total{state="done"} '
    assert f"{line}1.0" in first.render().decode()
    assert f"{line}0.0" in second.render().decode()
