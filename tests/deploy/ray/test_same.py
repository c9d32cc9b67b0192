"""Two replicas behind an ingress answer as one process does, and learn what one is taught."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deploy.ray.clusters import Set, options, run
from tests.faults.material import (
    decision,
    write_adapters,
    write_library,
    write_writer,
)
from tests.faults.servers import serving
from tests.server.relay.asked import READING, WRITING, Request, told

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def reading(
    ray_address: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Set, httpx.Client, Path]]:
    """The set, a client of one process on the same library, and where adapters lie."""
    folder = tmp_path_factory.mktemp("reading")
    library = write_library(folder / "library")
    adapters = write_adapters(folder / "adapters")
    given = options(library, adapter_roots=str(adapters), scan_seconds=0)
    of_set = run(ray_address, given)
    of_set.wait_for(2)
    with (
        serving(folder, "--library", str(library)) as server,
        httpx.Client(base_url=server.address, timeout=60) as alone,
    ):
        yield of_set, alone, adapters


def test_every_replica_reads_as_one_process_does(reading: tuple[Set, httpx.Client, Path]) -> None:
    of_set, alone, _ = reading
    with of_set.client() as client:
        for request in READING:
            mine = told(request.send(alone))
            for _ in range(4):  # both are met
                assert told(request.send(client)) == mine, request.name


def test_an_expert_added_once_answers_everywhere_at_once(
    reading: tuple[Set, httpx.Client, Path],
) -> None:
    of_set, _, adapters = reading
    body = {"id": "flight", "source": str(adapters / "flight"), "choices": [
        {"value": v} for v in ("launch", "soaring", "landing")]}  # fmt: skip
    with of_set.client() as client:
        for _ in range(5):
            assert client.post("/v1/experts", json=body).status_code == 201
            asked = [client.post("/v1/decisions", json=decision() | {"model": "flight"})
                     for _ in range(12)]  # fmt: skip
            assert {a.status_code for a in asked} == {200}
            assert client.put("/v1/aliases/best", json={"expert": "flight"}).is_success
            named = [client.post("/v1/decisions", json=decision() | {"model": "best"})
                     for _ in range(12)]  # fmt: skip
            assert {a.status_code for a in named} == {200}
            assert client.delete("/v1/aliases/best").status_code == 204
            assert client.delete("/v1/experts/flight").status_code == 204
            gone = [client.post("/v1/decisions", json=decision() | {"model": "flight"})
                    for _ in range(12)]  # fmt: skip
            assert {a.status_code for a in gone} == {404}


def test_metrics_tell_replicas_apart_and_readiness_is_of_the_set(
    reading: tuple[Set, httpx.Client, Path],
) -> None:
    of_set, _, _ = reading
    with of_set.client() as client:
        assert client.get("/ready").json() == {"status": "ready"}
        assert client.get("/health").json() == {"status": "ok"}
        text = client.get("/metrics").text
    lines = [ln for ln in text.splitlines() if ln.startswith("sailplane_ready{")]
    assert len(lines) == 2
    assert len({ln.split('replica="')[1] for ln in lines}) == 2
    assert text.count("# TYPE sailplane_ready gauge") == 1


def test_every_replica_writes_as_one_process_does(ray_address: str, tmp_path: Path) -> None:
    library = write_writer(tmp_path / "library")
    of_set = run(ray_address, options(library, backbone="tiny-causal"))
    of_set.wait_for(2)
    arguments = ("--backbone", "tiny-causal", "--library", str(library))
    with (
        serving(tmp_path, *arguments) as server,
        httpx.Client(base_url=server.address, timeout=60) as alone,
        of_set.client() as client,
    ):
        for request in WRITING:
            mine = told(request.send(alone))
            for _ in range(4):
                assert told(request.send(client)) == mine, request.name


def test_the_demo_answers_as_one_process_does(ray_address: str, tmp_path: Path) -> None:
    library = Path(__file__).parents[3] / "library" / "minilm"
    of_set = run(ray_address, options(library, backbone="demo"))
    of_set.wait_for(2)
    texts = ("What a lovely film!", "The goalkeeper saved it.", "SELECT 1", "Is water wet?")
    asked = [Request("POST", "/v1/decisions", decision(text)) for text in texts]
    with (
        serving(tmp_path, "--backbone", "demo", "--library", str(library)) as server,
        httpx.Client(base_url=server.address, timeout=60) as alone,
        of_set.client() as client,
    ):
        for request in asked:
            mine = told(request.send(alone))
            for _ in range(4):
                assert told(request.send(client)) == mine, request.name
