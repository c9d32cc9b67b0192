"""The wiring: what is pinned and preloaded before the first request, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI

from server.beside import build_routing_log
from server.build import build_app, build_engine
from server.engine.run import Engine
from server.observability.metrics import Metrics
from server.settings import Settings, SettingsError

SMALLEST = 1 << 20


def settings(library: Path, **more: object) -> Settings:
    return Settings(backbone="tiny-random", library=library, threads=1, **more)


def engine_of(app: FastAPI) -> Engine:
    return app.state.context.service.engine


def places(engine: Engine) -> dict[str, str]:
    return {id: engine.tiers.where(e.ref) for id, e in engine.library.entries.items()}


def test_nothing_is_loaded_before_it_is_asked_for(library):
    assert set(places(build_engine(settings(library))).values()) == {"disk"}


def test_a_pinned_expert_is_ready_and_follows_its_newest_version(library, bare_adapter):
    engine = build_engine(settings(library, pin=("mood",)))
    assert places(engine) == {"mood": "device", "weather": "disk"}
    engine.tiers.device.budget = 1  # as if others needed all of it
    folder = bare_adapter(rename=False)
    old = engine.library.get("mood").ref
    new = engine.library.add(
        folder, "mood", sites=engine.backbone.sites, roots=(folder.parent,), replace=True
    )
    engine.catch_up()
    assert [engine.tiers.where(ref) for ref in (old, new.ref)] == ["host", "device"]
    with engine.changing():
        engine.library.remove("mood")
    assert engine.tiers.stats["device"].bytes == 0


def damage(library: Path, id: str) -> None:
    """Other bytes, as many as before: not seen before they are read."""
    weights = library / id / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")


def test_what_cannot_be_pinned_is_refused_with_the_reason(library):
    with pytest.raises(SettingsError, match=r"pin = 'wether'.*Did you mean weather"):
        build_engine(settings(library, pin=("wether",)))
    with pytest.raises(SettingsError, match=r"pin = 'broken'.*cannot be served"):
        build_engine(settings(library, pin=("broken",)))
    damage(library, "mood")
    with pytest.raises(SettingsError, match=r"pin = 'mood'.*cannot be served"):
        build_engine(settings(library, pin=("mood",)))


def test_pinned_experts_must_leave_room(library):
    tight = settings(library, pin=("mood",)).model_copy(update={"device_bytes": 20_000})
    with pytest.raises(SettingsError, match="device_bytes = 20000: expected more"):
        build_engine(tight)


def test_preloading_loads_what_is_named_or_all_of_them(library):
    assert places(engine_of(build_app(settings(library, preload=("mood",))))) == {
        "mood": "device", "weather": "disk",
    }  # fmt: skip
    assert set(places(engine_of(build_app(settings(library, preload=("all",))))).values()) == {
        "device"
    }
    with pytest.raises(SettingsError, match="preload = 'sea'"):
        build_app(settings(library, preload=("sea",)))


def test_what_finds_no_room_is_told_and_loaded_when_asked_for(
    library: Path, caplog: pytest.LogCaptureFixture, write_task: Callable[[Path, str], Path]
) -> None:
    write_task(library, "flight")
    one = build_engine(settings(library, pin=("mood",))).tiers.stats
    tight = settings(library, preload=("all",)).model_copy(
        update={
            "host_bytes": int(one["host"].bytes * 1.5),
            "device_bytes": int(one["device"].bytes * 1.5 / 0.75),
        }
    )
    with caplog.at_level(logging.WARNING):
        app = build_app(tight)
    assert places(engine_of(app)) == {"flight": "device", "mood": "disk", "weather": "disk"}
    assert "preloaded 1 of 3 experts" in caplog.text


def test_opening_says_how_far_it_is(
    library: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr("server.build.LOG_SECONDS", 0)
    with caplog.at_level(logging.INFO):
        build_app(settings(library), lambda done, total: told.append((done, total)))
    assert told == [(0, 3), (1, 3), (2, 3), (0, 2), (1, 2)]  # manifests, then artefacts
    assert "reading the library: 1 of 3 experts" in caplog.text


def test_a_routing_log_that_cannot_be_written_stops_the_start(library, tmp_path):
    path = tmp_path / "nowhere" / "routing.jsonl"
    with pytest.raises(SettingsError, match=r"routing_log = .*No such file"):
        build_app(settings(library, routing_log=path))


def test_lost_lines_of_the_routing_log_are_counted(library, tmp_path):
    metrics = Metrics()
    log = build_routing_log(settings(library, routing_log=tmp_path / "routing.jsonl"), metrics)
    assert log is not None
    log.start()
    log.write(lambda: [1 / 0])
    log.close()
    assert b'sailplane_routing_log_lost_total{reason="not_written"} 1.0' in metrics.render()
    assert build_routing_log(settings(library), metrics) is None
