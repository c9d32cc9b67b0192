"""From settings to a running server: the one place where the parts are put together.

Everything is built once and handed on; nothing here reads the environment or answers a request.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import torch
from fastapi import FastAPI

from experts.backbones import TextEncoder, open_backbone
from experts.cache import ExpertCache
from experts.embedder import open_embedder
from experts.entries import Entry
from experts.errors import BadExpert
from experts.library import Library
from experts.loader import load_expert
from experts.memory import keep_freed
from experts.weights import ExpertWeights
from routers.instructions import InstructionWriter
from server.app import create_app
from server.engine.run import Engine
from server.engine.service import EngineService
from server.instructions.openai import OpenAIWriter
from server.observability.metrics import Metrics
from server.settings import Settings, SettingsError

Bar = Callable[[Sequence[Entry], str], Iterable[Entry]]
"""Goes through work that takes a while, and shows how far it is."""
LOADS = 4
"""Tries of a load whose files are replaced meanwhile."""


def build_app(settings: Settings, bar: Bar = lambda items, _: items) -> FastAPI:
    """The web application; its engine starts and drains with it.

    Args:
        settings: what is in force. bar: as `build_engine`'s.

    Raises:
        SettingsError, ExpertError: the backbone, the library or the router cannot be used.
    """
    metrics = Metrics(settings.expert_label_cap)
    service = EngineService(
        build_engine(settings, metrics.loaded, bar),
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
    )


def build_engine(
    settings: Settings,
    on_load: Callable[[str, float], None] | None = None,
    bar: Bar = lambda items, _: items,
) -> Engine:
    """The engine over the library of these settings.

    Args:
        settings: what is in force. on_load: told the id and seconds of every expert loaded.
        bar: goes through experts whose words the embedder has still to see.

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
    cache = ExpertCache(_loader(library, backbone), settings.cache_bytes, on_load=on_load)
    embedder = open_embedder(settings.embedder, backbone, backbone_name=settings.backbone)
    engine = Engine(
        backbone, library, cache, embedder=embedder, router=settings.router, top_k=settings.top_k
    )
    if settings.router not in engine.presets:
        known = ", ".join(["default", *engine.presets])
        raise SettingsError(f"router = {settings.router!r}: expected one of {known}")
    wordings = engine.routing.view.wordings
    if todo := wordings.missing(library.entries.values()):
        for entry in bar(todo, f"Embedding what {len(todo)} experts say by {embedder.id}"):
            wordings.prepare(entry)
    engine.routing.catch_up()
    return engine


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


def _loader(library: Library, backbone: TextEncoder) -> Callable[[str], ExpertWeights]:
    """Loads a version of an expert by its reference, which names it in memory too."""

    def read(entry: Entry) -> ExpertWeights:
        weights = load_expert(entry, backbone.sites, dtype=backbone.dtype, device=backbone.device)
        return replace(weights, id=entry.ref)

    def load(ref: str, tries: int = LOADS) -> ExpertWeights:
        entry = library.find(ref)
        try:
            return read(entry)
        except BadExpert as error:
            library.set_aside(entry, error.message)
            if tries == 1 or entry.id in library.bad:
                raise
        return load(ref, tries - 1)  # it was replaced or removed under our eyes

    return load
