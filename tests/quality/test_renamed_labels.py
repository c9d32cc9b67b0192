"""No decision rests on how a label is spelt: under `choices` a match of strings would be an oracle.

Every fixed label set but one is unique, so a router that compared strings would know the task. Two
renamings show that none does. The caller's labels are spelt so that the strings differ under any
folding of case, while the embedder reads the same tokens; and the library's labels become nonsense,
while its vectors stay. If all decisions stay too, only embeddings were compared. What a label means
still counts, and how much is what the condition `reworded` measures.
"""

import json
import random
import shutil
from dataclasses import replace

import pytest

from benchmarks.quality.conditions import CONDITIONS, SEEN, ask
from experts.library import Library
from experts.training.data import read_tasks
from server.build import build_engine
from server.engine.messages import Choice, Question, RoutingOptions, Sample
from server.evaluate import foreign_words
from server.settings import read_settings
from tests.quality.conftest import ROOT, demo_engine

TASKS = ROOT / "tests" / "data" / "tasks"
ACUTE = "\N{COMBINING ACUTE ACCENT}"
PER_TASK = 1


def respelt(choice):
    """Other characters everywhere, for the embedder the same words."""
    accented = "".join(c + ACUTE if c in "aeiou" else c for c in str(choice.value))
    return replace(choice, value=f" {accented.swapcase()} ")


def samples(cards, condition, spell=lambda choice: choice):
    words = foreign_words(cards)
    return [
        Sample(
            a.asked.input,
            Question("choice", a.asked.instruction, tuple(map(spell, a.asked.choices))),
            options=RoutingOptions(truncate=True, sees=SEEN[condition]),
        )
        for task in read_tasks(TASKS)
        for a in ask(task.name, task.test[:PER_TASK], cards[task.name], condition, words)
    ]


def decisions(engine, asked):
    return [(o.trace.selection, o.trace.confidence, o.answer.probabilities)
            for o in engine.run(asked)]  # fmt: skip


@pytest.fixture(scope="module")
def engine():
    """One of its own: vectors kept of other batches would differ in their last bits."""
    return demo_engine()


@pytest.fixture(scope="module")
def cards(engine):
    return {id: entry.manifest for id, entry in engine.library.entries.items()}


@pytest.mark.parametrize("condition", CONDITIONS)
def test_callers_may_spell_labels_as_they_like(engine, cards, condition):
    plain, other = samples(cards, condition), samples(cards, condition, respelt)
    for a, b in zip(plain, other, strict=True):
        named = {c.text.casefold().strip() for c in a.question.choices}
        assert named.isdisjoint(c.text.casefold().strip() for c in b.question.choices)
    assert decisions(engine, plain) == decisions(engine, other)


@pytest.fixture(scope="module")
def nameless(engine, tmp_path_factory):
    """The demo library with every label and wording of every expert renamed."""
    root = tmp_path_factory.mktemp("nameless") / "library"
    shutil.copytree(engine.library.root, root)
    rng = random.Random(0)
    for path in root.glob("*/expert.json"):
        said = json.loads(path.read_text())
        for label in said["labels"]:
            for wording in (label, *label["wordings"]):
                wording["value"] = f"{rng.randrange(16**8):08x}"
                wording.pop("description", None)
        path.write_text(json.dumps(said))
    assert not Library.open(root).bad
    return build_engine(read_settings({"library": root, "threads": 1}).settings)


@pytest.mark.parametrize("condition", ["choices", "reworded"])
def test_the_library_may_call_them_anything(engine, nameless, cards, condition):
    asked = samples(cards, condition)
    assert decisions(engine, asked) == decisions(nameless, asked)


def test_what_a_label_means_does_count(engine, cards):
    """Else the two tests above would say nothing."""
    plain = samples(cards, "choices")
    other = samples(cards, "choices", lambda choice: Choice(str(choice.value)[::-1]))
    assert decisions(engine, plain) != decisions(engine, other)
