"""Every setting of a server: its default, its bounds, and its description.

Knows nothing of what the values are for, nor where they come from: see `server.settings.sources`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

PREFIX = "SAILPLANE_"
OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


class SettingsError(ValueError):
    """A value that cannot be used. The message says key, value, source and expectation."""


def _split(value: object) -> object:
    return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value


def _split_names(value: object) -> object:
    """Names apart, whether one text holds them or several options do."""
    given = [value] if isinstance(value, str) else value
    if not isinstance(given, list | tuple) or not all(isinstance(v, str) for v in given):
        return value
    return [part for text in given for name in text.split(",") if (part := name.strip())]


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("expected an http:// or https:// address")
    return value.rstrip("/")


Paths = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]
Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split_names)]
Url = Annotated[str, AfterValidator(_http_url)]


class Settings(BaseSettings):
    """The values in force. A field's description is also the help text of its option."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", env_prefix=PREFIX)

    backbone: str = Field("demo", description="Folder, hub id, 'demo' or 'tiny-random'.")
    embedder: str = Field(
        "backbone",
        description="What instructions and choices are compared by: a sentence-transformers "
        "model's folder or hub id, or 'backbone'.",
    )
    device: str = Field("cpu", description="Where the backbone runs, as torch names it.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="Type that a language model computes in."
    )
    quantization: Literal["8bit", "4bit"] | None = Field(
        None, description="Hold a language model's weights in so many bits, by bitsandbytes."
    )
    library: Path = Field(Path("library/minilm"), description="The folder of experts.")
    library_url: str | None = Field(
        None, description="Where `sailplane experts push` wrote: --library is kept a copy of it."
    )
    adapter_roots: Paths = Field(
        (), description="Folders that adapters may be loaded from while serving."
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    keys: Path | None = Field(
        None,
        description="File of API keys, made by `sailplane keys add`; with one, every request but "
        "/health and /ready needs a key.",
    )
    allow_anonymous: bool = Field(
        False, description="Listen on a public address without keys: whoever reaches it may ask."
    )
    metrics_host: str = Field(
        "127.0.0.1", description="Address that --metrics-port listens on; keep it private."
    )
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port that serves /metrics alone, and without a key."
    )
    tls_certificate: Path | None = Field(
        None, description="File of the certificate chain (PEM); with --tls-key, to serve https."
    )
    tls_key: Path | None = Field(None, description="File of the certificate's private key (PEM).")

    router: str = Field("default", description="Routing preset of requests that name none.")
    top_k: int | None = Field(None, ge=1, description="Experts a preset keeps, in its place.")
    writer: Literal["template", "openai", "local"] = Field(
        "template",
        description="Who writes the instruction when the caller sends none; 'local' is "
        "the backbone itself, where it writes.",
    )
    openai_base_url: Url = Field(
        "https://api.openai.com/v1", description="Chat endpoint of the 'openai' writer."
    )
    openai_model: str = Field("gpt-4o-mini", description="Model of the 'openai' writer.")
    openai_api_key: SecretStr = Field(SecretStr(""), description="Key of the 'openai' writer.")
    local_timeout_ms: int = Field(
        5000, ge=1, description="After this the template takes over from the 'local' writer."
    )
    openai_timeout_ms: int = Field(
        2000, ge=1, description="After this the template takes over from the 'openai' writer."
    )
    openai_concurrency: int = Field(8, ge=1, description="Calls of the writer at one time.")

    max_queue: int = Field(1024, ge=1, description="Samples that may wait; more are refused.")
    max_batch: int = Field(32, ge=1, description="Samples in one batch.")
    max_wait_ms: float = Field(
        0.2,
        ge=0,
        allow_inf_nan=False,
        description="How long a busy engine waits to fill its next batch.",
    )
    timeout_ms: int = Field(30_000, ge=1, description="Deadline of requests that name none.")
    client_timeout_seconds: float = Field(
        30.0,
        gt=0,
        allow_inf_nan=False,
        description="How long a client may take to send a request's head, then its body, and to "
        "take 48 KiB of an answer, or the rest; its connection is closed then.",
    )
    body_limit: int = Field(4 << 20, ge=1024, description="Largest request body, in bytes.")
    token_limit: int | None = Field(
        None, ge=1, description="Tokens a request for text may have, prompts and texts together."
    )
    host_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="Bytes of experts kept on the host as files hold them, least used out first.",
    )
    device_bytes: int = Field(
        1 << 30,
        ge=1 << 20,
        description="Bytes of experts kept ready to compute, least used out first; a quarter of "
        "it is for experts laid side by side.",
    )
    feature_entries: int = Field(
        65_536,
        ge=1024,
        description="Texts whose vectors are kept, of each sort; 65,536 inputs of the demo take "
        "230 MB.",
    )
    kv_bytes: int = Field(
        1 << 30, ge=1 << 20, description="Bytes for keys and values of texts being written."
    )
    prefix_bytes: int = Field(
        256 << 20,
        ge=0,
        description="Bytes for how prompts began that came up more than once, so that the next one "
        "to the same experts is not read from its start; 0 is none.",
    )
    max_rows: int = Field(256, ge=1, description="Texts written at one time.")
    write_timeout_ms: int = Field(
        600_000, ge=1, description="Deadline of requests that write text and name none."
    )
    pin: Names = Field((), description="Experts that stay ready to compute.")
    preload: Names = Field(
        (), description="Experts loaded before the server is ready; 'all' for as many as fit."
    )
    scan_seconds: float = Field(
        5.0,
        ge=0,
        allow_inf_nan=False,
        description="How often to look for experts that others changed in the library; 0 is never.",
    )
    threads: int = Field(
        0,
        ge=0,
        description="Threads of a forward pass; 0 is one per core that a container may use.",
    )
    linger_seconds: float = Field(
        0.0,
        ge=0,
        allow_inf_nan=False,
        description="How long after SIGTERM /ready says 503 while requests are still taken: give "
        "a load balancer time to look away.",
    )
    drain_seconds: float = Field(
        20.0,
        ge=0,
        allow_inf_nan=False,
        description="How long running requests may take to finish after that.",
    )

    console: bool = Field(
        True, description="Whether to serve the web page at /console (extra 'console')."
    )
    otlp_endpoint: Url | None = Field(
        None,
        description="Base address of an OpenTelemetry collector, for a span of every request "
        "and each of its stages (extra 'otel'); OTEL_EXPORTER_OTLP_ENDPOINT says it too.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log lines to write."
    )
    log_text: bool = Field(False, description="Whether logs may hold the text of requests.")
    audit_log: Path | None = Field(
        None, description="File of the audit log: a JSON line for each change by HTTP, too."
    )
    routing_log: Path | None = Field(
        None,
        description="File of the routing log, a JSON line for each answer and no text of requests.",
    )
    routing_log_bytes: int = Field(
        16 << 20, ge=4096, description="Size at which the routing log begins a new file."
    )
    routing_log_files: int = Field(
        8, ge=1, description="Full files of the routing log that are kept."
    )
    expert_label_cap: int = Field(
        64, ge=0, description="Experts named in metrics; the rest are 'other'."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: `read_settings` asks the other sources, to know who said what."""
        return (init_settings,)
