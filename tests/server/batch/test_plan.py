"""What is left to answer: lines, their answers, and files that do not belong together."""

import json
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.batch.lines import Line
from server.batch.plan import Plan, read_lines, read_plan, resume, start_over
from server.errors import BadLine, BatchFileError, RepeatedLine

from .conftest import request

LIMIT = 2000


def answered(*ids: str, status: int = 200) -> bytes:
    body = {"error": {"code": "invalid_value"}} if status != 200 else {}
    lines = (
        {"id": id, "custom_id": "?", "response": {"status_code": status, "body": body}}
        for id in ids
    )
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()


def ids(plan: Plan) -> list[str]:
    return [task.id for task in plan.tasks()]


def test_every_line_is_a_task_and_empty_ones_are_none(write):
    plan = read_plan(write(request("a"), "", request("b"), "   "), LIMIT)
    tasks = list(plan.tasks())
    assert plan.total == 2
    assert [t.line.custom_id for t in tasks] == ["a", "b"]
    assert [t.id.split("_")[2] for t in tasks] == ["1", "3"]


@pytest.mark.parametrize(
    ("line", "custom_id", "reason"),
    [
        ("{", None, "EOF while parsing"),
        ("[]", None, "Input should be an object"),
        ({"model": "auto", "input": "x", "questions": []}, None, "custom_id: Field required"),
        (request("a", method="GET"), "a", "method: Input should be 'POST'"),
        (request("a", url="/v1/models"), "a", "url: Input should be '/v1/decisions'"),
        (request("a", body=[1]), "a", "body: Input should be an object"),
        (request("a", more=1), "a", "more: Extra inputs are not permitted"),
        (request(""), "", "custom_id: Must not be blank"),
        (request(7), None, "custom_id: Input should be a valid string"),
        (request("a", "x" * LIMIT), None, f"more than {LIMIT} bytes"),
    ],
)
def test_a_line_that_is_no_request_is_told_with_its_number(write, line, custom_id, reason):
    plan = read_plan(write(request("first"), line, request("last")), LIMIT)
    before, task, after = plan.tasks()
    assert isinstance(task.line, BadLine)
    assert task.line.message.startswith("Line 2 ")
    assert reason in task.line.message
    assert task.line.custom_id == custom_id
    assert isinstance(before.line, Line)
    assert isinstance(after.line, Line)


def test_of_a_custom_id_the_first_line_counts(write):
    plan = read_plan(write(request("a"), request("b"), request("a", "Rain.")), LIMIT)
    first, _, third = (task.line for task in plan.tasks())
    assert isinstance(first, Line)
    assert isinstance(third, RepeatedLine)
    assert third.message == "Line 3 has the custom_id of line 1."
    assert third.custom_id == "a"


def test_what_is_answered_is_not_asked_again_and_failures_are_counted(write):
    source = write(*map(request, "abc"))
    one, two, three = ids(read_plan(source, LIMIT))
    plan = read_plan(source, LIMIT)
    resume(plan, BytesIO(answered(three) + answered(one, status=422)))
    assert ids(plan) == [two]
    assert (plan.answered, plan.total) == (2, 3)
    assert plan.failed == {"invalid_value": 1}


def test_lines_added_to_the_input_are_asked_for(write):
    old = ids(read_plan(write(*map(request, "ab")), LIMIT))
    plan = read_plan(write(*map(request, "abc")), LIMIT)
    resume(plan, BytesIO(answered(*old)))
    assert [task.line.custom_id for task in plan.tasks()] == ["c"]


@given(st.data())
def test_an_output_cut_off_anywhere_is_gone_on_with(tmp_path_factory, data):
    source = tmp_path_factory.mktemp("cut") / "in.jsonl"
    names = data.draw(st.lists(st.text("abc", min_size=1), min_size=1, max_size=8))
    source.write_text("".join(json.dumps(request(name)) + "\n" for name in names))
    order = data.draw(st.permutations(ids(read_plan(source, LIMIT))))
    written = answered(*order)
    cut = data.draw(st.integers(0, len(written)))
    plan = read_plan(source, LIMIT)
    end = resume(plan, BytesIO(written[:cut]))
    whole = written[:cut].count(b"\n")
    assert written[:end] == answered(*order[:whole])
    assert set(ids(plan)) == set(order[whole:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda lines: lines[:2], "line 3 of a longer input"),
        (lambda lines: [lines[1], lines[0], lines[2]], "another line 1 than the input has"),
        (lambda lines: [request("a", "Rain."), *lines[1:]], "remove its answer"),
        (lambda lines: ["", *lines], "another line 1"),
    ],
)
def test_the_output_of_another_input_is_refused(write, change, reason):
    lines = [request(name) for name in "abc"]
    done = answered(*ids(read_plan(write(*lines), LIMIT)))
    plan = read_plan(write(*change(lines)), LIMIT)
    with pytest.raises(BatchFileError, match=reason) as refused:
        resume(plan, BytesIO(done))
    assert "--again" in refused.value.message


def test_a_line_answered_twice_is_refused(write):
    plan = read_plan(write(request("a")), LIMIT)
    (id,) = ids(plan)
    with pytest.raises(BatchFileError, match="line 1 twice"):
        resume(plan, BytesIO(answered(id, id)))


@pytest.mark.parametrize(
    "content",
    [
        b"notes of mine",
        b"notes of mine\n",
        b'{"custom_id": "a"}\n',
        b'{"id": "batch_req_1", "response": {"status_code": 200}}\n',
        b'{"id":"batch_req_1_00000000","response":null}\n',
        b"\x00\x00\x00",
    ],
)
def test_a_file_of_somebody_else_is_neither_gone_on_with_nor_cut(write, content):
    plan = read_plan(write(request("a")), LIMIT)
    with pytest.raises(BatchFileError, match="not an answer of `sailplane batch`"):
        resume(plan, BytesIO(content))


def test_starting_over_spares_a_file_of_somebody_else():
    assert start_over(BytesIO(answered("batch_req_1_00000000"))) == 0
    assert start_over(BytesIO(b"")) == 0
    with pytest.raises(BatchFileError, match="name another output"):
        start_over(BytesIO(b"notes of mine\n"))


def test_an_input_that_changes_meanwhile_is_noticed(write):
    plan = read_plan(write(*map(request, "ab")), LIMIT)
    tasks = plan.tasks()
    next(tasks)
    write(request("a"), request("b", "Rain, and then some more of it."))
    with pytest.raises(BatchFileError, match=r"line 2 changed"):
        list(plan.tasks())


@given(st.lists(st.binary(max_size=40).map(lambda b: b.replace(b"\n", b"")), max_size=6))
def test_lines_are_read_in_bounded_pieces(lines):
    limit = 10
    read = list(read_lines(BytesIO(b"".join(line + b"\n" for line in lines)), limit))
    assert [number for number, _ in read] == list(range(1, len(lines) + 1))
    for line, (_, data) in zip(lines, read, strict=True):
        kept = line.rstrip(b"\r")
        assert data == kept[: limit + 1] or (len(line) > limit and len(data) <= limit + 1)
