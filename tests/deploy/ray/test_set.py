"""What is of the set as a whole: how many replicas, who is asked for an expert, keys, who left."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from server.access.keyfile import write_keys
from server.access.keys import make_key
from tests.deploy.ray.clusters import Set, options, run
from tests.faults.clients import visiting, wait_until
from tests.faults.material import completion, decision, write_library, write_writer
from tests.server.relay.asked import events

pytestmark = pytest.mark.slow


@pytest.fixture
def library(tmp_path: Path) -> Path:
    return write_library(tmp_path / "library")


def of_replicas(text: str, sample: str) -> dict[str, float]:
    """A sample of each replica, of those that match; summed where several do."""
    found: Counter[str] = Counter()
    for line in text.splitlines():
        if re.match(sample, line):
            replica = re.search(r'replica="([^"]+)"', line)
            assert replica
            found[replica[1]] += float(line.rpartition(" ")[2])
    return dict(found)


def decided(of_set: Set) -> dict[str, float]:
    with of_set.client() as client:
        return of_replicas(
            client.get("/metrics").text, r'sailplane_requests_total\{.*route="/v1/decisions"'
        )


def test_replicas_come_with_the_load_and_go_with_it(ray_address: str, library: Path) -> None:
    given = options(
        library, replicas=1, max_replicas=2, target_in_hand=4, upscale_delay_seconds=1,
        downscale_delay_seconds=2,
    )  # fmt: skip
    of_set = run(ray_address, given)
    of_set.wait_for(1)
    with visiting(of_set, "/v1/decisions", decision(), count=24) as visitors:
        of_set.wait_for(2)
        time.sleep(3)
        assert all(decided(of_set).values()), "both answer"
    of_set.wait_for(1)
    with of_set.client() as client:
        assert client.post("/v1/decisions", json=decision()).is_success
    assert set(visitors.answered) == {200}
    assert not visitors.cut
    assert not visitors.hung


def test_an_expert_is_asked_for_where_it_was_before(ray_address: str, library: Path) -> None:
    of_set = run(ray_address, options(library, by_expert=True))
    of_set.wait_for(2)
    with of_set.client() as client:
        for model in ("mood", "weather"):
            body = decision() | {"model": model}
            assert client.post("/v1/decisions", json=body).is_success
            time.sleep(2)  # Ray tells its routers who has what
            before = decided(of_set)
            for _ in range(30):
                assert client.post("/v1/decisions", json=body).is_success
            after = decided(of_set)
            asked = {name: after[name] - before.get(name, 0) for name in after}
            print(model, asked)
            assert max(asked.values()) == sum(asked.values()) == 30


def test_keys_are_asked_for_and_a_limited_one_hears_of_its_experts_alone(
    ray_address: str, library: Path, tmp_path: Path
) -> None:
    (all_, all_secret), (team, team_secret) = (
        make_key("all", ["infer", "admin", "metrics"]), make_key("team", ["infer"], ["nothing"])
    )  # fmt: skip
    write_keys(tmp_path / "keys.json", [all_, team])
    given = options(library, keys=str(tmp_path / "keys.json"))
    del given["allow_anonymous"]
    of_set = run(ray_address, given)
    opened = {"Authorization": f"Bearer {all_secret}"}

    def ready() -> bool:
        return httpx.get(f"{of_set.address}/ready").is_success

    wait_until(ready, 60)
    with of_set.client() as nobody, of_set.client(headers=opened) as everyone:
        for path in ("/v1/models", "/v1/experts", "/metrics"):
            assert nobody.get(path).status_code == 401, path
            assert everyone.get(path).status_code == 200, path
        assert nobody.post("/v1/decisions", json=decision()).status_code == 401
        assert everyone.post("/v1/decisions", json=decision()).status_code == 200
        limited = {"Authorization": f"Bearer {team_secret}"}
        listed = nobody.get("/v1/models", headers=limited).json()["data"]
        assert not {"mood", "weather"} & {model["id"] for model in listed}
        forced = nobody.post("/v1/decisions", json=decision() | {"model": "mood"}, headers=limited)
        assert forced.status_code == 404
        assert nobody.get("/metrics", headers=limited).status_code == 403


def test_a_text_nobody_waits_for_is_not_written_on(ray_address: str, tmp_path: Path) -> None:
    of_set = run(ray_address, options(write_writer(tmp_path / "library"), backbone="tiny-causal"))
    of_set.wait_for(2)

    def written() -> float:
        with of_set.client() as client:
            return sum(
                of_replicas(
                    client.get("/metrics").text, r"sailplane_generated_tokens_total\{"
                ).values()
            )

    before, rows, length = written(), 8, 200
    body = completion(length, n=rows, stream=True)
    with of_set.client() as client:
        for _ in range(4):
            with client.stream("POST", "/v1/completions", json=body) as answer:
                assert answer.status_code == 200
                next(answer.iter_bytes())
        whole = client.post("/v1/completions", json=completion(20, stream=True))
        assert events(whole.text)[-1] == "[DONE]"
    time.sleep(3)  # long enough to write all of it
    print(written() - before, "of", 4 * rows * length)
    assert written() - before < 0.5 * 4 * rows * length
