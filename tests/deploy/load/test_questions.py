"""What the load asks: all tasks, the first ones most; answers are sure where their expert is."""

import json
import random
from collections import Counter
from pathlib import Path

from deploy.load.questions import Questions
from deploy.load.refusals import REFUSALS, too_large

ROOT = Path(__file__).parents[3]
EXPERTS = {path.stem for path in (ROOT / "library" / "tasks").glob("*.json")}


def test_all_experts_of_the_demo_are_asked_by_a_zipf_law():
    questions = Questions(random.Random(0), EXPERTS)
    drawn = Counter(questions.task()["expert"] for _ in range(20_000))
    assert set(drawn) == EXPERTS
    order = [task["expert"] for task in questions.tasks]
    assert 1.8 < drawn[order[0]] / drawn[order[1]] < 2.2
    assert 8 < drawn[order[0]] / drawn[order[9]] < 12.5


def test_a_seed_asks_the_same_again_and_texts_seldom_repeat():
    one, other = (Questions(random.Random(3), EXPERTS) for _ in range(2))
    asked = [one.decision() for _ in range(500)]
    assert asked == [other.decision() for _ in range(500)]
    assert len({a["input"] for a, right in asked if right == [None]}) > 350
    assert not any("{" in a["input"] for a, _ in asked)


def test_requests_are_of_all_sorts():
    questions = Questions(random.Random(1), EXPERTS)
    asked = [questions.decision() for _ in range(2000)]
    assert {q["type"] for a, _ in asked for q in a["questions"]} == {"choice", "predicate", "score"}
    assert 0.2 < sum(len(a["questions"]) > 1 for a, _ in asked) / 2000 < 0.5
    assert {a.get("routing", {}).get("trace") for a, _ in asked} == {None, "full"}
    assert len({a["model"] for a, _ in asked}) > 10
    assert sum(right != [None] for _, right in asked) > 100
    assert len(questions.booking()[1]) == 2
    lists = [e["input"] for e in (questions.embedding() for _ in range(50))]
    assert all(e[0] == e[-1] for e in lists if isinstance(e, list))


def test_without_its_expert_no_answer_is_sure_and_no_expert_named():
    questions = Questions(random.Random(1))
    asked = [questions.decision() for _ in range(500)]
    assert all(right == [None] and a["model"] == "auto" for a, right in asked)
    assert questions.booking()[1] == []


def test_bad_requests_are_bad_in_one_way():
    assert len({bad.name for bad in REFUSALS}) == len(REFUSALS)
    large = too_large(1 << 16)
    assert len(large.body) > 1 << 16
    assert json.loads(large.body)["model"] == "auto"
