"""The locustfile against real servers: it passes a right one, and fails a wrong one."""

import hashlib
import json
import shutil

import httpx
import pytest

from benchmarks.places import WRITER


def swap(library, one, other):
    """Put the weights of two experts in each other's place, each with a sum that fits."""
    files = [library / id / "adapter_model.safetensors" for id in (one, other)]
    first, second = (file.read_bytes() for file in files)
    for file, content in zip(files, (second, first), strict=True):
        file.write_bytes(content)
        manifest = file.with_name("expert.json")
        told = json.loads(manifest.read_text("utf-8"))
        told["files"][file.name] = hashlib.sha256(content).hexdigest()
        manifest.write_text(json.dumps(told), "utf-8")


@pytest.mark.slow
def test_a_right_server_passes(serve, library, locust, tmp_path):
    url = serve(library, "--routing-log", str(tmp_path / "routing.jsonl"))
    run = locust(
        url, "--users", "9", "--run-time", "8s", "--think", "0.05",
        "--adapter", str(tmp_path / "adapters" / "one"),
    )  # fmt: skip
    assert run.code == 0, run.said
    assert run.failures == []
    total = run.rows["Aggregated"]
    assert int(total["Request Count"]) > 10  # the machine may be busy
    assert int(total["Failure Count"]) == 0
    assert "/v1/decisions" in run.rows
    assert sum(s["answered"] for s in run.seconds) >= int(total["Request Count"])  # and cleaning up
    assert sum(s["failed"] + s["refused"] for s in run.seconds) == 0
    left = [e["id"] for e in httpx.get(f"{url}/v1/experts").json()["data"]]
    assert len(left) == 18  # what was added has been removed


@pytest.mark.slow
def test_a_server_whose_experts_are_swapped_fails(serve, library, locust):
    swap(library, "sst2", "trec")
    swap(library, "tweet_emotion", "language_id")
    run = locust(serve(library), "--users", "17", "--run-time", "20s", "--think", "0")
    assert run.code == 1
    assert any("and the server said" in why for why in run.failures), run.failures


@pytest.mark.slow
def test_an_open_loop_keeps_its_rate_and_a_full_queue_is_a_failure_unless_it_may_be(
    serve, library, locust
):
    url = serve(library, "--max-queue", "4")
    rates = ("--users", "2", "--run-time", "10s", "--rate", "300")
    run = locust(url, *rates, "--allow-refusals")
    assert run.code == 0, run.said
    assert run.failures == []
    whole = run.seconds[2:-2]
    ended = sum(s["answered"] + s["refused"] for s in whole) / len(whole)
    assert ended == pytest.approx(300, rel=0.25)
    assert sum(s["refused"] for s in whole) > 0
    strict = locust(url, *rates)
    assert strict.code == 1
    assert any("503" in why for why in strict.failures)


@pytest.mark.slow
def test_a_server_that_writes_passes(serve, tmp_path, locust):
    copy = tmp_path / "writer"
    shutil.copytree(WRITER, copy, ignore=shutil.ignore_patterns(".*"))
    url = serve(copy, "--backbone", str(copy / "byte-llama-3m"), "--embedder", "demo")
    run = locust(
        url, "--users", "4", "--run-time", "10s", "--think", "0.1", file="locustfile_text.py"
    )
    assert run.code == 0, run.said
    assert run.failures == []
    assert {"/v1/chat/completions (stream)", "/v1/completions"} <= set(run.rows)


def test_no_server_and_a_rate_that_is_none_are_said(locust):
    gone = locust("http://127.0.0.1:9", "--users", "2", "--run-time", "5s")
    assert gone.code == 2
    assert "127.0.0.1:9/v1/experts" in gone.said
