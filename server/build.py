"""From settings to a running server: the one place where the parts are put together.

Everything is built once and handed on; nothing here reads the environment or answers a request.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence

import joblib
import torch
from fastapi import FastAPI

from experts.backbones import Backbone, LanguageModel, open_backbone
from experts.embedder import open_embedder
from experts.entries import Entry
from experts.errors import BadExpert, LibraryUnreachable, UnknownExpert
from experts.host import HostExpert
from experts.library import Library
from experts.loader import read_expert
from experts.memory import keep_freed
from experts.mirror import Mirror, Mirrored
from experts.scanning import Progress
from experts.tiers import Tier, Tiers
from experts.versions import parse_reference
from server.api.bounds import Bounds
from server.app import VERSION, create_app
from server.beside import build_keys, build_routing_log, build_writer
from server.engine.generation.loop import GenerationLoop
from server.engine.run import Engine
from server.engine.service import EngineService
from server.observability.metrics import Metrics
from server.observability.tracer import open_tracer
from server.settings import Settings, SettingsError

log = logging.getLogger("sailplane.library")

STACKS = 4
"""The part of the device's bytes that is for experts laid side by side: one in four."""
LOG_SECONDS = 2.0
"""Between two lines on how far opening a library is."""
LOADS = 4
"""Tries of a load whose files are replaced meanwhile."""


def build_app(settings: Settings, progress: Progress | None = None) -> FastAPI:
    """The web application; its engine starts and drains with it.

    Args:
        settings: what is in force. progress: see `build_engine`.

    Raises:
        SettingsError, ExpertError: the backbone, the library or the router cannot be used.
    """
    service = build_service(settings, settings.max_queue, progress)
    return create_app(
        service,
        bounds=Bounds(
            body_bytes=settings.body_limit,
            tokens=settings.token_limit,
            client_seconds=settings.client_timeout_seconds,
            timeout_ms=settings.timeout_ms,
            write_timeout_ms=settings.write_timeout_ms,
        ),
        adapter_roots=settings.adapter_roots,
        keys=build_keys(settings),
        drain_seconds=settings.drain_seconds,
        scan_seconds=settings.scan_seconds,
        log_text=settings.log_text,
        routing_log=build_routing_log(settings, service.metrics),
        tracer=open_tracer(settings.otlp_endpoint, VERSION),
    )


def build_service(
    settings: Settings, max_queue: int, progress: Progress | None = None
) -> EngineService:
    """The engine, its queue of `max_queue` samples, its writer and its metrics; not started.

    Args:
        progress: see `build_engine`.

    Raises:
        SettingsError, ExpertError: as `build_app`.
    """
    metrics = Metrics(settings.expert_label_cap)
    engine = build_engine(settings, metrics.loaded, progress)
    # Tokenizers are of no more use where their first batch finds no memory: it is now.
    engine.backbone.tokens(["a", "b"])
    _preload(engine, settings.preload)
    service = EngineService(
        engine,
        max_queue=max_queue,
        max_batch=settings.max_batch,
        max_wait_ms=settings.max_wait_ms,
        metrics=metrics,
    )
    service.writer = build_writer(settings, service)
    return service


def build_engine(
    settings: Settings, on_load: Callable[[Tier, float], None] | None = None,
    progress: Progress | None = None,
) -> Engine:  # fmt: skip
    """The engine over the library of these settings.

    Args:
        settings: what is in force. on_load: see `Tiers`. progress: told how far reading the
            library is: manifests, then artefacts, whose words a new embedder has to see.

    Raises:
        SettingsError, ExpertError: as `build_app`.
    """
    if not (settings.library_url or settings.library.is_dir()):
        raise SettingsError(
            f"library = {str(settings.library)!r}: expected a folder that exists "
            "(an empty one starts a new library)"
        )
    keep_freed()
    backbone = open_backbone(
        settings.backbone, settings.device, settings.dtype, settings.quantization
    )
    cores = settings.threads or joblib.cpu_count()
    if backbone.device.type == "cpu":
        torch.set_num_threads(1)
        backbone.widen(cores)
    progress = _logged(progress)
    library = _open_library(settings, backbone, progress)
    stack_bytes = settings.device_bytes // STACKS
    tiers = build_tiers(
        library, backbone, settings.host_bytes, settings.device_bytes - stack_bytes, on_load
    )
    writes = isinstance(backbone, LanguageModel)
    engine = Engine(
        backbone, library, tiers,
        generation=build_generation(settings, backbone, tiers) if writes else None,
        embedder=open_embedder(settings.embedder, backbone, backbone_name=settings.backbone),
        router=settings.router, top_k=settings.top_k, pin=settings.pin, stack_bytes=stack_bytes,
        feature_entries=settings.feature_entries,
    )  # fmt: skip
    if settings.router not in engine.presets:
        known = ", ".join(["default", *engine.presets])
        raise SettingsError(f"router = {settings.router!r}: expected one of {known}")
    engine.catch_up(progress)
    _require_listed(library, "pin", settings.pin)
    _require_room(engine, settings)
    return engine


def _open_library(settings: Settings, backbone: Backbone, progress: Progress) -> Library:
    """The folder as it is, or kept a copy of what lies at an address."""
    if settings.library_url is None:
        return Library.open(
            settings.library, fingerprint=backbone.fingerprint, backbone_id=backbone.id,
            progress=progress,
        )  # fmt: skip
    mirror = Mirror(settings.library_url, settings.library)
    library = Mirrored(mirror, backbone.fingerprint, backbone.id)
    library.refresh(progress=progress)
    return library


def build_generation(settings: Settings, backbone: LanguageModel, tiers: Tiers) -> GenerationLoop:
    """What writes with a backbone that can."""
    return GenerationLoop(
        backbone,
        tiers,
        kv_bytes=settings.kv_bytes,
        max_rows=settings.max_rows,
        prefix_bytes=settings.prefix_bytes,
    )


def build_tiers(
    library: Library,
    backbone: Backbone,
    host_bytes: int,
    device_bytes: int,
    on_load: Callable[[Tier, float], None] | None = None,
) -> Tiers:
    """The tiers that a library's experts are loaded through; see `Tiers` for the arguments."""
    return Tiers(
        _reader(library, backbone), dtype=backbone.dtype, device=backbone.device,
        host_bytes=host_bytes, device_bytes=device_bytes, on_load=on_load,
    )  # fmt: skip


def _logged(progress: Progress | None) -> Progress:
    """Says in the log too how far it is, now and then."""
    last = time.monotonic()

    def told(done: int, total: int) -> None:
        nonlocal last
        if progress:
            progress(done, total)
        if time.monotonic() - last > LOG_SECONDS:
            last = time.monotonic()
            log.info("reading the library: %d of %d experts", done, total)

    return told


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


def _reader(library: Library, backbone: Backbone) -> Callable[[str], HostExpert]:
    """Reads a version of an expert by its reference, which names it in memory too."""

    def read(ref: str, tries: int = LOADS) -> HostExpert:
        entry = _listed(library, ref)
        try:
            return read_expert(entry, backbone.sites).named(entry.ref, entry.manifest.version)
        except BadExpert as error:
            if not library.reachable:
                raise LibraryUnreachable(
                    f"Expert {entry.id!r} is not in memory, and the library's folder is not there "
                    "or may not be read."
                ) from error
            library.set_aside(entry, error.message)
            if not entry.path.is_dir():
                raise UnknownExpert(f"Expert {entry.id!r} was removed meanwhile.") from None
            if tries == 1 or entry.id in library.bad:
                raise
        return read(ref, tries - 1)  # it was replaced or removed under our eyes

    return read


def _listed(library: Library, ref: str) -> Entry:
    """The entry of a reference; raises BadExpert where the expert has been set aside."""
    try:
        return library.find(ref)
    except UnknownExpert:
        if (why := library.bad.get(parse_reference(ref)[0])) is not None:
            raise BadExpert(why) from None
        raise
