"""One line: its digests, and what is no line."""

import pytest

from server.evidence.record import digests, parse_line


def test_equal_values_differ_between_requests_and_types_differ_within_one():
    one, two = digests("r1", ["yes", True, "True"]), digests("r2", ["yes", True, "True"])
    assert len({*one, *two}) == 6
    assert one == digests("r1", ["yes", True, "True"])
    assert all(len(digest) == 16 for digest in one)


def test_a_request_id_may_be_longer_than_a_key():
    assert digests("x" * 128, ["yes"]) != digests("x" * 127, ["yes"])


def test_a_line_reads_as_it_was_written(routed, told):
    for line in (routed(values=["x", "y"], answer=1), told(expected="x"), told(correct=False)):
        assert parse_line(line.model_dump_json()) == line


@pytest.mark.parametrize("change", [{"format": 2}, {"event": "asked"}, {"extra": 1}])
def test_what_another_version_wrote_is_no_line(routed, change):
    with pytest.raises(ValueError, match="validation error"):
        parse_line(routed().model_copy(update=change).model_dump_json()[:-1] + ',"extra":1}')
