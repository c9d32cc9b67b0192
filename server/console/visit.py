"""One visitor's look at the server: its key, and what the API told about what there is.

A visit is one tab, and holds nothing of other visitors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from server.console.api import Api, Refused
from server.console.figures import History
from server.console.wish import AUTO, PATHS, SORTS, Sort

FORBIDDEN = 403
KEPT = ("id", "title", "instructions", "labels", "samples", "path")
"""What views need of every expert; all else is asked for when it is shown."""


@dataclass
class Visit:
    """What the views share.

    Attributes:
        api: as this visitor may use it. base: address of the server, as the browser has it.
            locked: told when the key counts no more. answers: routes that the backbone answers.
            backbone: its name. routers: the presets. default: the preset that routes where none is
            named. experts: by id. traced: whether this key may see traces, as far as is known.
            asked: the instruction that was routed by last. dark: whether the page is, at first.
            history: what the live view saw.
    """

    api: Api
    base: str
    locked: Callable[[Refused], None] | None = None
    answers: list[str] = field(default_factory=list)
    backbone: str = ""
    routers: list[Mapping[str, Any]] = field(default_factory=list)
    default: str = ""
    experts: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    traced: bool = True
    asked: str = ""
    dark: bool = False
    history: History | None = None

    async def look(self) -> None:
        """Ask what there is.

        Raises:
            Refused: the server tells this visitor nothing.
        """
        models = (await self.api.get("/v1/models"))["data"]
        backbone = next(m for m in models if m["answers"] and m["id"] != AUTO)
        self.backbone, self.answers = backbone["id"], backbone["answers"]
        presets = await self.api.get("/v1/routers")
        self.routers, self.default = presets["data"], presets["default"]
        await self.look_at_library()

    async def look_at_library(self) -> Mapping[str, Any]:
        """Ask for the experts again; the whole answer."""
        told = await self.api.get("/v1/experts")
        self.experts = {e["id"]: {name: e[name] for name in KEPT} for e in told["data"]}
        return told

    @property
    def keyed(self) -> bool:
        """Whether the visitor gave a key."""
        return bool(self.api.key)

    @property
    def governs(self) -> bool:
        """Whether the visitor may change the library: who may is told where it lies."""
        return not self.experts or any(e["path"] is not None for e in self.experts.values())

    @property
    def sorts(self) -> dict[str, str]:
        """What may be asked of this backbone, and how it is called."""
        return {sort: says for sort, says in SORTS.items()
                if sort not in PATHS or PATHS[sort] in self.answers}  # fmt: skip

    @property
    def sort(self) -> Sort:
        """What is asked of this backbone at first."""
        for sort, path in PATHS.items():
            if path in self.answers:
                return sort
        return "choice"

    def refused_trace(self, refused: Refused) -> bool:
        """Whether an answer was refused for the sake of its trace; the next is asked without."""
        if refused.status == FORBIDDEN and refused.param == "routing.trace":
            self.traced = False
            return True
        return False
