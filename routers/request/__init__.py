"""Request routers: each scores every expert of the catalogue for one query. One policy decides."""

from __future__ import annotations

from routers.request.base import RequestRouter, Scores
from routers.request.centroid import CentroidRouter
from routers.request.evidence import EvidenceRouter
from routers.request.nearest import NearestRouter, NeighboursRouter
from routers.request.sentence import SentenceRouter
from routers.request.uniform import UniformRouter

REQUEST_ROUTERS: dict[str, RequestRouter] = {
    router.name: router
    for router in (
        EvidenceRouter(),
        SentenceRouter(),
        CentroidRouter(),
        NearestRouter(),
        NeighboursRouter(),
        UniformRouter(),
    )
}

__all__ = ["REQUEST_ROUTERS", "RequestRouter", "Scores"]
