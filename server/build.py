"""From settings to a running server: the one place where the parts are put together.

Everything is built once and handed on; nothing here reads the environment or answers a request.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace

import torch
from fastapi import FastAPI

from experts.backbones import TextEncoder, open_backbone
from experts.cache import ExpertCache
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

LOADS = 4
"""Tries of a load whose files are replaced meanwhile."""


def build_app(settings: Settings) -> FastAPI:
    """The web application; its engine starts and drains with it.

    Raises:
        SettingsError, ExpertError: the backbone, the library or the router cannot be used.
    """
    return create_app(
        build_service(settings, settings.max_queue),
        adapter_roots=settings.adapter_roots,
        max_body_bytes=settings.body_limit,
        timeout_ms=settings.timeout_ms,
        drain_seconds=settings.drain_seconds,
        log_text=settings.log_text,
    )


def build_service(settings: Settings, max_queue: int) -> EngineService:
    """The engine, its queue of `max_queue` samples, its writer and its metrics; not started.

    Raises:
        SettingsError, ExpertError: as `build_app`.
    """
    metrics = Metrics(settings.expert_label_cap)
    return EngineService(
        build_engine(settings, on_load=metrics.loaded),
        max_queue=max_queue,
        max_batch=settings.max_batch,
        max_wait_ms=settings.max_wait_ms,
        metrics=metrics,
        writer=build_writer(settings),
    )


def build_engine(settings: Settings, on_load: Callable[[str, float], None] | None = None) -> Engine:
    """The engine over the library of these settings.

    Args:
        settings: what is in force. on_load: told the id and seconds of every expert loaded.

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
    engine = Engine(backbone, library, cache, router=settings.router, top_k=settings.top_k)
    if settings.router not in engine.presets:
        known = ", ".join(["default", *engine.presets])
        raise SettingsError(f"router = {settings.router!r}: expected one of {known}")
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
