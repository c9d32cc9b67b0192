"""What others change in the library's folder, while the engine answers."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import shutil
import threading
import weakref
from pathlib import Path

import pytest
import torch

from experts.entries import CONFIG, MANIFEST, ROUTING, WEIGHTS
from experts.library import Library
from server.engine.messages import Outcome, Sample
from server.engine.run import Engine
from server.engine.service import EngineService
from server.engine.watching import watching
from server.errors import ServerError

pytestmark = pytest.mark.anyio


def ask(engine: Engine, model: str) -> object:
    (result,) = engine.run([Sample("Clear skies.", None, model)])
    return result


def answer(engine: Engine, model: str) -> torch.Tensor:
    found = ask(engine, model)
    assert isinstance(found, Outcome), found
    assert found.answer is not None
    return torch.tensor(found.answer.embedding)


def elsewhere(engine: Engine) -> Library:
    """The same library, as another process has it."""
    return Library.open(
        engine.library.root, fingerprint=engine.backbone.fingerprint, backbone_id="tiny-random"
    )


def test_a_change_by_another_process_is_answered_by_after_a_look(rich: Engine, written: Path):
    before = {id: answer(rich, id) for id in ("mood", "weather")}
    other = elsewhere(rich)
    sites = rich.backbone.sites
    other.add(written / "weather", "mood", sites=sites, roots=(written,), replace=True)
    other.add(written / "mood", "new", sites=sites, roots=(written,))
    other.remove("quiz")
    found = rich.scan()
    assert (found.added, found.replaced, found.removed) == (("new",), ("mood",), ("quiz",))
    assert found.generation == rich.routing.view.current().generation == other.generation
    torch.testing.assert_close(answer(rich, "mood"), before["weather"])
    torch.testing.assert_close(answer(rich, "new"), before["mood"])
    torch.testing.assert_close(answer(rich, "mood@1"), before["mood"])
    assert isinstance(ask(rich, "quiz"), ServerError)
    assert {"new", "mood"} <= set(rich.routing.catalogue.ids)


def test_a_trace_names_the_library_that_was_looked_at(rich: Engine):
    found = ask(rich, "auto")
    assert isinstance(found, Outcome)
    assert found.trace.generation == rich.library.generation
    shutil.rmtree(rich.library.root / "quiz")
    rich.scan()
    again = ask(rich, "mood")
    assert isinstance(again, Outcome)
    assert again.trace.generation == rich.library.generation != found.trace.generation


def held(engine: Engine, id: str) -> list[weakref.ref[torch.Tensor]]:
    """The tensors of an expert in memory, in its tiers and its stacks."""
    ref = engine.library.get(id).ref
    with engine.tiers.pin([ref]) as lease:
        loaded = [t for parts in lease.experts[ref].sites.values() for t in parts.values()]
        stacks = engine.stacks.get([lease.experts[ref]])
    stacked = [t for stack in stacks for parts in stack.sites.values() for t in parts.values()]
    return [weakref.ref(t) for t in (*loaded, *stacked)]


@pytest.mark.parametrize("how", ["removed", "replaced under its name", "half there"])
def test_what_is_gone_is_freed(rich: Engine, how: str):
    folder = rich.library.root / "mood"
    answer(rich, "mood")
    tensors, others = held(rich, "mood"), held(rich, "weather")
    if how == "removed":
        shutil.rmtree(folder)
    elif how == "half there":
        (folder / WEIGHTS).unlink()
    else:  # an operator copies another expert in, and it has the same version
        manifest = json.loads((rich.library.root / "weather" / MANIFEST).read_text())
        for name in (CONFIG, WEIGHTS, ROUTING):
            shutil.copyfile(rich.library.root / "weather" / name, folder / name)
        (folder / MANIFEST).write_text(json.dumps({**manifest, "id": "mood"}))
    rich.scan()
    gc.collect()
    assert [ref() for ref in tensors if ref() is not None] == []
    assert all(ref() is not None for ref in others)
    assert rich.tiers.stats["host"].experts == rich.tiers.stats["device"].experts == 1
    if how == "replaced under its name":
        torch.testing.assert_close(answer(rich, "mood"), answer(rich, "weather"))


def test_a_former_version_that_is_kept_stays_in_memory(rich: Engine, written: Path):
    answer(rich, "mood")
    elsewhere(rich).add(
        written / "weather", "mood", sites=rich.backbone.sites, roots=(written,), replace=True
    )
    rich.scan()
    assert rich.tiers.where("mood@1") == "device"


def test_a_batch_that_stacks_what_was_removed_meanwhile_leaves_nothing(
    rich: Engine, monkeypatch: pytest.MonkeyPatch
):
    stack = rich.stacks.get

    def get(experts):
        shutil.rmtree(rich.library.root / "mood", ignore_errors=True)
        rich.scan()  # beside the forward pass that is about to begin
        return stack(experts)

    monkeypatch.setattr(rich.stacks, "get", get)
    answer(rich, "mood")  # the tensors are there: the request goes on
    assert not rich.stacks._stacks
    assert isinstance(ask(rich, "mood"), ServerError)


async def until(true, seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not true():
            await asyncio.sleep(0.01)


async def test_a_server_looks_by_itself_and_requests_go_on(rich: Engine, written: Path, caplog):
    """Copied, replaced and deleted by hand, while two clients ask."""
    service = EngineService(rich)
    await service.start()
    wrong: list[object] = []
    stop = False

    async def ask_on(model: str) -> None:
        while not stop:
            (found,) = await service.submit([Sample("Clear skies.", None, model)])
            if not isinstance(found, Outcome):
                wrong.append(found)

    library, root = rich.library, rich.library.root
    with caplog.at_level(logging.INFO, "sailplane.library"):
        async with watching(service, 0.02):
            asking = [asyncio.create_task(ask_on(model)) for model in ("auto", "weather")]
            for _ in range(3):
                copied = asyncio.create_task(asyncio.to_thread(slow_copy, written / "mood", root))
                await until(lambda: "copy" in library.bad)
                await copied
                await until(lambda: "copy" in library.entries)
                shutil.rmtree(root / "copy")
                await until(lambda: "copy" not in library.entries | library.bad)
            (root / "calibration.json").write_text("{")
            await until(lambda: "could not be looked at" in caplog.text)
            (root / "calibration.json").unlink()
            shutil.rmtree(root / "quiz")
            await until(lambda: "quiz" not in library.entries)
            stop = True
            await asyncio.gather(*asking)
        shutil.rmtree(root / "flight")
        await asyncio.sleep(0.1)
        assert "flight" in library.entries, "nobody looks any more"
    await service.drain(5)
    assert wrong == []
    assert "found added by others: copy" in caplog.text
    assert caplog.text.count("could not be looked at") == 1
    counted = service.metrics.registry.get_sample_value
    looks = {s: counted("sailplane_library_looks_total", {"state": s}) for s in ("done", "failed")}
    assert all(looks.values()), looks


def slow_copy(source: Path, root: Path) -> None:
    """As `cp -r` does it, file after file, each in pieces."""
    target = root / "copy"
    target.mkdir()
    for name in (MANIFEST, CONFIG, ROUTING, WEIGHTS):
        data = (source / name).read_bytes()
        data = data.replace(b'"id":"mood"', b'"id":"copy"').replace(
            b'"id": "mood"', b'"id": "copy"'
        )
        with (target / name).open("wb") as file:
            for part in (data[:500], data[500:]):
                threading.Event().wait(0.02)
                file.write(part)
                file.flush()


async def test_a_look_never_runs_beside_another_change(rich: Engine, monkeypatch):
    service = EngineService(rich)
    running: list[str] = []
    looks = 0

    def scan(**_given: object) -> object:
        nonlocal looks
        assert running == []
        looks += 1
        return Engine.scan(rich)

    def change() -> None:
        running.append("change")
        threading.Event().wait(0.1)
        running.clear()

    monkeypatch.setattr(rich, "scan", scan)
    async with watching(service, 0.01):
        for _ in range(3):
            await service.run_blocking(change)
        await until(lambda: looks > 3)
