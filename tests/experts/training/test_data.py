"""Task folders: what is read, what is refused, and what is set aside."""

import gzip
import json
import random
from pathlib import Path

import pytest

from experts.training.data import (
    SET_ASIDE,
    Example,
    Task,
    TaskFormatError,
    is_set_aside,
    read_tasks,
)

OURS = Path(__file__).parents[2] / "data" / "tasks"
GOOD = json.dumps({"input": "a", "options": ["x", "y"], "answer": 1})


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("not json", "expected input, options and answer"),
        ('{"input": "a", "options": ["x", "y"]}', "answer"),
        ('{"input": "a", "options": null, "answer": 0}', "expected input, options and answer"),
        ('{"input": "a", "options": ["x", "y"], "answer": "first"}', "expected"),
        ('["a", ["x", "y"], 0]', "expected input, options and answer"),
        ('{"input": "a", "options": ["x", "y"], "answer": 2}', "answer 2 is not an index"),
        ('{"input": "a", "options": ["x", "y"], "answer": -1}', "answer -1 is not an index"),
        ('{"output": "a"}', "expected input, options and answer, or input and output"),
        ('{"input": "a", "output": ""}', "output: expected a text"),
        ('{"input": "a", "output": 3}', "output: expected a text"),
        ('{"input": "a", "output": "b", "answer": 0}', "output and answer: expected one of them"),
        ('"output"', "expected input, options and answer"),
    ],
)
def test_a_bad_line_is_named(write_lines, line, why):
    folder = write_lines("task", [GOOD, GOOD, line, GOOD])
    with pytest.raises(TaskFormatError, match=why) as raised:
        _ = Task(folder).test
    assert str(folder / "test.jsonl.gz:3") in str(raised.value)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b"plain", lambda b: b[:10] + b"\7"])
def test_a_damaged_file_is_named(write_lines, damage):
    folder = write_lines("task", [GOOD] * 50)
    path = folder / "train.jsonl.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(TaskFormatError) as raised:
        _ = Task(folder).train
    assert str(path) in str(raised.value)


def test_bytes_that_are_not_utf8_are_named(write_lines):
    folder = write_lines("task", [GOOD])
    with gzip.open(folder / "test.jsonl.gz", "wb") as out:
        out.write(b'{"input": "\xff"}\n')
    with pytest.raises(TaskFormatError, match=r"test\.jsonl\.gz.*utf-8"):
        _ = Task(folder).test


def test_a_missing_file_and_a_bad_task_json_are_named(write_lines):
    folder = write_lines("task", [GOOD], about='{"options": [')
    (folder / "test.jsonl.gz").unlink()
    with pytest.raises(TaskFormatError, match=r"test\.jsonl\.gz"):
        _ = Task(folder).test
    with pytest.raises(TaskFormatError, match=r"task\.json.*line 1"):
        _ = Task(folder).labels


def test_an_example_is_read_as_it_stands(write_task):
    example = Example("Über «all»\nthings", ("x", "y", "z"), 2)
    task = Task(write_task("task", [example], options=["x", "y", "z"]))
    assert task.test == (example,)
    assert task.labels == ("x", "y", "z")
    assert task.name == "task"


def test_a_text_to_write_is_the_only_option(write_lines):
    lines = [json.dumps({"input": f"{i}", "output": f"«{i}»"}) for i in range(40)]
    task = Task(write_lines("task", lines))
    assert task.test[3] == Example("3", ("«3»",), 0)
    assert task.test[3].is_written
    assert task.test[3].right == "«3»"
    assert task.writes
    assert task.train
    assert task.aside


def test_one_question_with_choices_and_a_task_does_not_write(write_lines):
    assert not Task(write_lines("task", [json.dumps({"input": "a", "output": "b"}), GOOD])).writes


def test_a_file_may_be_plain_text(write_task):
    example = Example("a", ("x", "y"), 1)
    folder = write_task("task", [example])
    for name in ("train", "test"):
        packed = folder / f"{name}.jsonl.gz"
        (folder / f"{name}.jsonl").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    task = Task(folder)
    assert task.test == (example,)
    assert task.train_path == folder / "train.jsonl"
    assert [*task.train, *task.aside] == [example]


def test_a_file_in_both_forms_is_told(write_task):
    folder = write_task("task", [Example("a", ("x", "y"), 1)])
    (folder / "test.jsonl").write_text(GOOD)
    with pytest.raises(TaskFormatError, match=r"test\.jsonl and test\.jsonl\.gz: expected one"):
        _ = Task(folder).test


def test_a_task_json_that_is_no_object_is_named(write_lines):
    with pytest.raises(TaskFormatError, match=r"task\.json: expected an object"):
        _ = Task(write_lines("task", [GOOD], about="[]")).labels


def test_questions_with_their_own_choices_have_no_label_set(write_task):
    assert Task(write_task("task", [], options=None)).labels is None


def test_train_and_aside_share_nothing_and_miss_nothing(write_task):
    examples = [Example(f"input {i}", ("x", "y"), i % 2) for i in range(400)]
    task = Task(write_task("task", examples))
    train, aside = {e.input for e in task.train}, {e.input for e in task.aside}
    assert not train & aside
    assert train | aside == {e.input for e in examples}


def test_the_share_set_aside_is_as_said():
    drawn = [is_set_aside(Example(f"input {i}", ("x", "y"), 0)) for i in range(10_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(SET_ASIDE, abs=0.012)


def test_what_is_set_aside_depends_on_the_input_alone(write_task):
    """Neither order nor neighbours, nor which labels a new version of the data has."""
    examples = [Example(f"input {i}", ("x", "y"), i % 2) for i in range(200)]
    mixed = random.Random(0).sample([Example(e.input, ("p", "q", "r"), 2) for e in examples], 150)
    before, after = Task(write_task("before", examples)), Task(write_task("after", mixed))
    kept = {e.input for e in mixed}
    assert {e.input for e in after.aside} == {e.input for e in before.aside} & kept
    assert after.aside


def test_tasks_are_read_in_order_of_name_and_only_those_asked_for(write_task, tmp_path):
    for name in ("b", "c", "a"):
        write_task(name, [])
    (tmp_path / "not-a-task").mkdir()
    assert [t.name for t in read_tasks(tmp_path)] == ["a", "b", "c"]
    assert [t.name for t in read_tasks(tmp_path, ["c", "a"])] == ["a", "c"]


def test_a_task_that_is_missing_is_named(write_task, tmp_path):
    write_task("a", [])
    with pytest.raises(TaskFormatError, match="no task d, e"):
        read_tasks(tmp_path, ["e", "a", "d"])


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(TaskFormatError, match="no task folders"):
        read_tasks(tmp_path)


def test_our_own_examples_are_whole():
    tasks = read_tasks(OURS)
    assert len(tasks) == 18
    for task in tasks:
        examples = [*task.train, *task.aside, *task.test]
        assert len(examples) == 20
        assert len({e.input for e in examples}) == 20
        if task.labels:
            assert all(set(e.options) <= set(task.labels) for e in examples)
