"""What sentences say of figures that are there, and of figures that are not."""

import json

from benchmarks.quality.findings import Numbers, kept_gains, paragraphs
from benchmarks.quality.report import outside
from benchmarks.quality.run import Order, run
from tests.benchmarks.quality.conftest import rows


def test_what_was_not_made_is_a_dash_and_never_a_number(bench):
    order = Order(rows("base", "default"), ("choices",), limit=2, timed=False, studies=False)
    found = run(bench, order)
    text = "\n".join(paragraphs(Numbers(found.summary, None, None), outside(found).held))
    assert "answers rightly - of - inputs" in text, "input was not asked"
    assert "own expert by - points" in text, "no stream was learnt"
    mean = found.summary.mean(rows("default")[0], found.summary.groups[0], "choices").mean
    assert f"{100 * mean:.1f}% when it also sees the choices" in text


def test_gains_are_those_that_the_streams_kept(tmp_path):
    assert kept_gains(tmp_path) == []
    near = {"stream": "near", "kind": "lora"}
    gains = [{**near, "row": "dam", "points": 1.25, "seeds": [1.0, 1.5]},
             {**near, "kind": "bottleneck", "row": "dam", "points": -0.5, "seeds": [-0.5]},
             {**near, "row": "oracle", "points": 9.0, "seeds": [9.0]}]  # fmt: skip
    (tmp_path / "continual.json").write_text(json.dumps({"gains": gains}))
    numbers = Numbers(None, None, None, kept_gains(tmp_path))
    assert numbers.continued("dam") == (
        "+1.2 in near, lora (+1.0, +1.5), -0.5 in near, bottleneck (-0.5)"
    )
