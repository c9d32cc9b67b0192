"""From settings to a running server: the one place where the parts are put together.

Everything is built once and handed on; nothing here reads the environment or answers a request.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

import torch
from fastapi import FastAPI

from experts.backbones import TextEncoder, open_backbone
from experts.entries import Entry
from experts.errors import BadExpert, UnknownExpert
from experts.host import HostExpert
from experts.library import Library
from experts.loader import read_expert
from experts.memory import keep_freed
from experts.tiers import Tier, Tiers
from experts.versions import parse_reference
from routers.instructions import InstructionWriter
from server.app import create_app
from server.engine.run import Engine
from server.engine.service import EngineService
from server.evidence.writer import RoutingLog
from server.instructions.openai import OpenAIWriter
from server.observability.metrics import Metrics
from server.settings import Settings, SettingsError

log = logging.getLogger("sailplane.library")

LOADS = 4
"""Tries of a load whose files are replaced meanwhile."""


def build_app(settings: Settings) -> FastAPI:
    """The web application; its engine starts and drains with it.

    Raises:
        SettingsError, ExpertError: the backbone, the library or the router cannot be used.
    """
    metrics = Metrics(settings.expert_label_cap)
    engine = build_engine(settings, on_load=metrics.loaded)
    _preload(engine, settings.preload)
    service = EngineService(
        engine,
        max_queue=settings.max_queue,
        max_batch=settings.max_batch,
        max_wait_ms=settings.max_wait_ms,
        metrics=metrics,
        writer=build_writer(settings),
    )
    return create_app(
        service,
        adapter_roots=settings.adapter_roots,
        max_body_bytes=settings.body_limit,
        timeout_ms=settings.timeout_ms,
        drain_seconds=settings.drain_seconds,
        log_text=settings.log_text,
        routing_log=build_routing_log(settings, metrics),
    )


def build_engine(
    settings: Settings, on_load: Callable[[Tier, float], None] | None = None
) -> Engine:
    """The engine over the library of these settings.

    Args:
        settings: what is in force. on_load: see `Tiers`.

    Raises:
        SettingsError, ExpertError: as `build_app`.
    """
    if not settings.library.is_dir():
        raise SettingsError(
            f"library = {str(settings.library)!r}: expected a folder that exists "
            "(an empty one starts a new library)"
        )
    backbone = open_backbone(settings.backbone, settings.device)
    cores = settings.threads or len(os.sched_getaffinity(0))
    if backbone.device.type == "cpu":
        keep_freed()
        torch.set_num_threads(1)
        backbone.widen(cores)
    library = Library.open(
        settings.library, fingerprint=backbone.fingerprint, backbone_id=backbone.id
    )
    stack_bytes = settings.device_bytes // 4
    tiers = Tiers(
        _reader(library, backbone),
        dtype=backbone.dtype,
        device=backbone.device,
        host_bytes=settings.host_bytes,
        device_bytes=settings.device_bytes - stack_bytes,
        on_load=on_load,
    )
    engine = Engine(
        backbone, library, tiers, router=settings.router, top_k=settings.top_k,
        pin=settings.pin, stack_bytes=stack_bytes,
    )  # fmt: skip
    if settings.router not in engine.presets:
        known = ", ".join(["default", *engine.presets])
        raise SettingsError(f"router = {settings.router!r}: expected one of {known}")
    engine.catch_up()
    _require_listed(library, "pin", settings.pin)
    _require_room(engine, settings)
    return engine


def _require_listed(library: Library, setting: str, ids: Sequence[str]) -> None:
    for id in ids:
        try:
            library.get(id)
        except UnknownExpert as error:
            raise SettingsError(f"{setting} = {id!r}: {error.message}") from None


def _require_room(engine: Engine, settings: Settings) -> None:
    """What is pinned leaves room for what is not."""
    held, budget = engine.tiers.stats["device"].bytes, engine.tiers.device.budget
    if held >= budget:
        raise SettingsError(
            f"device_bytes = {settings.device_bytes}: expected more: the pinned experts take "
            f"{held} bytes, and a quarter is for experts laid side by side"
        )


def _preload(engine: Engine, ids: Sequence[str]) -> None:
    """Load these experts while nobody waits yet, as far as the tiers' budgets go."""
    listed = engine.library.entries
    if ids == ("all",):
        ids = list(listed)
    _require_listed(engine.library, "preload", ids)
    loaded = engine.tiers.preload(listed[id].ref for id in ids)
    if loaded < len(ids):
        log.warning("preloaded %d of %d experts: no room for more", loaded, len(ids))


def build_routing_log(settings: Settings, metrics: Metrics) -> RoutingLog | None:
    """The routing log of these settings, if they ask for one.

    Raises:
        SettingsError: its file cannot be written.
    """
    path = settings.routing_log
    if path is None:
        return None
    try:
        return RoutingLog(
            path, settings.routing_log_bytes, settings.routing_log_files, on_lost=metrics.unlog
        )
    except OSError as error:
        raise SettingsError(
            f"routing_log = {str(path)!r}: expected a file that can be written ({error.strerror})"
        ) from error


def build_writer(settings: Settings) -> InstructionWriter | None:
    """The instruction writer of these settings; None for the template, which the engine has."""
    if settings.writer == "template":
        return None
    return OpenAIWriter(
        settings.openai_base_url,
        settings.openai_model,
        settings.openai_api_key.get_secret_value(),
        timeout_s=settings.openai_timeout_ms / 1000,
        concurrency=settings.openai_concurrency,
    )


def _reader(library: Library, backbone: TextEncoder) -> Callable[[str], HostExpert]:
    """Reads a version of an expert by its reference, which names it in memory too."""

    def read(ref: str, tries: int = LOADS) -> HostExpert:
        entry = _listed(library, ref)
        try:
            return read_expert(entry, backbone.sites).named(entry.ref, entry.manifest.version)
        except BadExpert as error:
            library.set_aside(entry, error.message)
            if tries == 1 or entry.id in library.bad:
                raise
        return read(ref, tries - 1)  # it was replaced or removed under our eyes

    return read


def _listed(library: Library, ref: str) -> Entry:
    """The entry of a reference; raises BadExpert where the expert has been set aside."""
    try:
        return library.find(ref)
    except UnknownExpert as error:
        if parse_reference(ref)[0] in library.bad:
            raise BadExpert(error.message) from None
        raise
