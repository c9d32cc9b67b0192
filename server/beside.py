"""What stands beside the engine, from settings: keys, routing log, instruction writer."""

from __future__ import annotations

from experts.backbones import LanguageModel
from routers.instructions import InstructionWriter
from server.access.keyfile import KeyStore
from server.engine.service import EngineService
from server.errors import BadKeyFile
from server.evidence.writer import RoutingLog
from server.instructions.local import LocalWriter
from server.instructions.openai import OpenAIWriter
from server.observability.metrics import Metrics
from server.settings import Settings, SettingsError


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


def build_keys(settings: Settings) -> KeyStore | None:
    """The keys of these settings, if they name a file.

    Raises:
        SettingsError: it cannot be read.
    """
    if settings.keys is None:
        return None
    try:
        return KeyStore(settings.keys)
    except BadKeyFile as error:
        raise SettingsError(f"keys = {error.message}") from None


def build_writer(settings: Settings, service: EngineService) -> InstructionWriter | None:
    """The instruction writer of these settings; None for the template, which the engine has.

    Raises:
        SettingsError: the backbone is to write, and cannot.
    """
    if settings.writer == "template":
        return None
    if settings.writer == "local":
        backbone = service.engine.backbone
        if service.writing is None or not isinstance(backbone, LanguageModel):
            raise SettingsError(
                f"writer = 'local': expected a backbone that writes, and {backbone.id!r} does not"
            )
        return LocalWriter(backbone, service.writing, timeout_s=settings.local_timeout_ms / 1000)
    return OpenAIWriter(
        settings.openai_base_url,
        settings.openai_model,
        settings.openai_api_key.get_secret_value(),
        timeout_s=settings.openai_timeout_ms / 1000,
        concurrency=settings.openai_concurrency,
    )
