import json

from benchmarks import worker
from benchmarks.material import EXPERTS, decision, library_experts, text, write_bodies
from benchmarks.worker import rate
from experts.backbones import open_backbone
from experts.stacks import stack_experts
from server.api.decisions import DecisionRequest
from server.batch.lines import Line


def test_texts_differ_and_stay_the_same_for_an_index():
    texts = [text(i) for i in range(2000)]
    assert len(set(texts)) == 2000
    assert text(7) == texts[7]
    assert {len(t.split()) for t in texts} <= set(range(15, 22))


def test_a_body_is_a_request_the_server_takes(tmp_path):
    path = write_bodies(tmp_path / "bodies", 5, lambda i: decision(i, {"mode": "merge"}))
    lines = path.read_text().splitlines()
    bodies = [DecisionRequest.model_validate_json(line) for line in lines]
    assert [b.routing.mode for b in bodies] == ["merge"] * 5
    assert len({json.loads(line)["input"] for line in lines}) == 5
    assert all(len(b.questions[0].choices) == 4 for b in bodies)


def test_a_line_is_a_request_a_batch_takes():
    line = Line.model_validate(worker._line(3))
    assert DecisionRequest.model_validate(line.body).input == text(3)


def test_experts_that_the_library_lacks_are_made_up(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.material.LIBRARY", tmp_path)
    backbone = open_backbone("tiny-random")
    experts = library_experts(backbone)
    assert len({e.id for e in experts}) == EXPERTS
    stack = stack_experts(experts)
    reachable = {name for name, site in backbone.sites.items() if site.reaches_output}
    assert set(stack.sites) == set(stack.vectors["gate"]) == reachable


def test_batches_have_the_mean_size_asked_for_and_never_repeat_a_text():
    seen = []

    def run(indices):
        seen.append(list(indices))
        return 0.5

    assert rate(run, at=100, batch=2.5, seconds=2.0) == 10 / 2.0
    assert [len(batch) for batch in seen] == [2, 3, 2, 3]
    assert [i for batch in seen for i in batch] == list(range(100, 110))
