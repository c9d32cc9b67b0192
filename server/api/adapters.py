"""vLLM's two adapter routes, so that tools written for it can manage the library.

An adapter loaded this way has no instructions, so it answers to its name; `/v1/experts` takes the
words that make it routable.
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from experts.manifest import ExpertId
from server.api.context import context
from server.api.experts import AddExpert, add_expert, remove_expert
from server.api.faults import BESIDE_TEXT
from server.api.lean import LeanRoute
from server.api.wire.base import Text, Wire
from server.observability.audit import about

router = APIRouter(prefix="/v1", tags=["experts"], route_class=LeanRoute)


class LoadAdapter(Wire):
    """vLLM's request. `load_inplace` replaces an expert of the same name."""

    lora_name: ExpertId
    lora_path: Text
    load_inplace: bool = False


class UnloadAdapter(Wire):
    """vLLM's request."""

    lora_name: ExpertId


@router.post("/load_lora_adapter", response_class=PlainTextResponse, responses=BESIDE_TEXT)
async def load_lora_adapter(body: LoadAdapter, request: Request) -> PlainTextResponse:
    """Add the adapter in a folder of this machine as an expert."""
    ctx = context(request)
    about(request.scope, id=body.lora_name, source=body.lora_path)
    adapter = AddExpert(source=body.lora_path, id=body.lora_name)
    await add_expert(ctx, adapter, replace=body.load_inplace)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' added successfully.")


@router.post("/unload_lora_adapter", response_class=PlainTextResponse, responses=BESIDE_TEXT)
async def unload_lora_adapter(body: UnloadAdapter, request: Request) -> PlainTextResponse:
    """Remove an expert."""
    about(request.scope, id=body.lora_name)
    await remove_expert(context(request), body.lora_name)
    return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' removed successfully.")
