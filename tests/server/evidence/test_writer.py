"""What is handed to the log is in its files, whatever happens to them."""

import os
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.evidence.reader import LogFiles, rotated
from server.evidence.writer import RoutingLog


def write(path, lines, *, max_bytes=1 << 20, files=3, **more):
    log = RoutingLog(path, max_bytes, files, **more)
    log.start()
    for line in lines:
        assert log.write(lambda line=line: [line])
    log.close()


IDS = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128)


@settings(max_examples=30, deadline=None)
@given(ids=st.lists(IDS, max_size=12), said=st.lists(IDS, max_size=4))
def test_lines_come_back_as_they_were_written(tmp_path_factory, routed, told, ids, said):
    path = tmp_path_factory.mktemp("log") / "routing.jsonl"
    lines = [routed(id, values=["x", True], answer=1) for id in ids]
    lines += [told(id, expected="x") for id in said]
    write(path, lines)
    read = LogFiles(path)
    assert list(read) == lines
    assert (read.files, read.skipped) == (1, 0)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 120), kept=st.integers(1, 4), max_bytes=st.integers(700, 8000))
def test_rotation_keeps_the_newest_lines_in_order(tmp_path_factory, routed, count, kept, max_bytes):
    path = tmp_path_factory.mktemp("log") / "routing.jsonl"
    lines = [routed(f"r{i}") for i in range(count)]
    write(path, lines, max_bytes=max_bytes, files=kept)
    files = rotated(path)
    assert len(files) <= kept + 1
    assert all(file.stat().st_size <= max_bytes for file in files)
    found = list(LogFiles(path))
    assert found == lines[len(lines) - len(found) :]
    if len(files) <= kept:
        assert found == lines, "nothing was rotated out"


def test_another_start_goes_on_after_a_torn_line(tmp_path, routed):
    path = tmp_path / "routing.jsonl"
    write(path, [routed("r1"), routed("r2")])
    path.write_bytes(path.read_bytes()[:-20])
    write(path, [routed("r3")])
    read = LogFiles(path)
    assert [line.request_id for line in read] == ["r1", "r3"]
    assert read.skipped == 1


def test_foreign_lines_and_foreign_files_are_passed_by(tmp_path, routed):
    path = tmp_path / "routing.jsonl"
    write(path, [routed("r1")])
    with path.open("ab") as file:
        file.write(b'not json\n{"event": "request"}\n\xff\xfe\n\n')
    (tmp_path / "routing.jsonl.gz").write_text("nothing of ours")
    (tmp_path / "routing.jsonl.01").write_text("nothing of ours")
    read = LogFiles(path)
    assert [line.request_id for line in read] == ["r1"]
    assert (read.files, read.skipped) == (1, 3)


def test_a_full_queue_loses_what_comes_on_top_and_says_so(tmp_path, routed):
    lost, go, begun = [], threading.Event(), threading.Event()
    log = RoutingLog(tmp_path / "routing.jsonl", 1 << 20, 1, on_lost=lost.append, waiting=1)

    def slow():
        begun.set()
        go.wait()
        return [routed("slow")]

    log.start()
    assert log.write(slow)
    begun.wait()
    assert log.write(lambda: [routed("next")])
    assert not log.write(lambda: [routed("lost")])
    go.set()
    log.close()
    assert lost == ["queue_full"]
    assert [line.request_id for line in LogFiles(log.path)] == ["slow", "next"]


def test_a_line_that_cannot_be_made_costs_no_other(tmp_path, routed, caplog):
    lost = []
    log = RoutingLog(tmp_path / "routing.jsonl", 1 << 20, 1, on_lost=lost.append)
    log.start()
    log.write(lambda: 1 / 0)
    log.write(lambda: [routed("fine")])
    log.close()
    assert lost == ["not_written"]
    assert "could not be made" in caplog.text
    assert [line.request_id for line in LogFiles(log.path)] == ["fine"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_counted_and_told_once(routed, caplog, tmp_path):
    lost = []
    (tmp_path / "routing.jsonl").symlink_to("/dev/full")
    log = RoutingLog(tmp_path / "routing.jsonl", 1 << 20, 1, on_lost=lost.append)
    log.start()
    for i in range(3):
        log.write(lambda i=i: [routed(f"r{i}")])
    log.close()
    assert lost == ["not_written"] * 3
    assert caplog.text.count("the routing log cannot be written") == 1
