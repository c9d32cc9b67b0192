"""One visitor's look at the server: its key, and what the API told about what there is.

A visit is one tab. It is made anew when the page is, and holds nothing of other visitors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from server.console.api import Api

WRITING = "/v1/completions"


@dataclass
class Visit:
    """What the views share.

    Attributes:
        api: as this visitor may use it. base: address of the server, as the browser has it.
        answers: routes that the backbone answers. backbone: its name. routers: the presets.
        default: the preset that routes where none is named. experts: by id.
    """

    api: Api
    base: str
    answers: list[str] = field(default_factory=list)
    backbone: str = ""
    routers: list[Mapping[str, Any]] = field(default_factory=list)
    default: str = ""
    experts: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    async def look(self) -> None:
        """Ask what there is.

        Raises:
            Refused: the server tells this visitor nothing.
        """
        models = (await self.api.get("/v1/models"))["data"]
        _, backbone = models[:2]  # auto comes first
        self.backbone, self.answers = backbone["id"], backbone["answers"]
        presets = await self.api.get("/v1/routers")
        self.routers, self.default = presets["data"], presets["default"]
        await self.look_at_library()

    async def look_at_library(self) -> Mapping[str, Any]:
        """Ask for the experts again; the whole answer."""
        told = await self.api.get("/v1/experts")
        self.experts = {expert["id"]: expert for expert in told["data"]}
        return told

    @property
    def keyed(self) -> bool:
        """Whether the visitor gave a key."""
        return bool(self.api.key)

    @property
    def writes(self) -> bool:
        """Whether the backbone writes."""
        return WRITING in self.answers
