"""What routers can know of an expert without training it further: what is said of it, and weights.

One sentence makes an expert routable, a few examples do it better, and Arrow prototypes need
neither. Gates need labelled examples and time: `routers.fitting.artefacts` fits them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from experts.artefacts import Artefacts
from experts.backbones import TextEncoder
from experts.manifest import Manifest
from experts.weights import ExpertWeights
from routers.fitting.arrow import arrow_vectors
from routers.fitting.artefacts import CENTROIDS
from routers.fitting.centroids import prototypes


def describe(
    backbone: TextEncoder,
    expert: ExpertWeights,
    manifest: Manifest,
    brought: Artefacts,
    examples: Sequence[str] = (),
) -> Artefacts:
    """Artefacts of an expert that joins a library.

    Args:
        manifest: its instructions (or else its title) and labels are embedded.
        brought: what came with it. Fitted by the same embedder, it stays where nothing newer is
            known; its vectors of token routing stay in any case.
        examples: inputs of its task; they make new centroids.
    """
    same = brought.embedder == backbone.fingerprint
    sentences = manifest.instructions or _said(manifest)
    words = [w.text for label in manifest.labels for w in label.known]
    vectors = dict(brought.vectors)
    if "arrow" not in vectors and (arrows := arrow_vectors(expert)):
        vectors["arrow"] = arrows
    return Artefacts(
        backbone.fingerprint,
        instructions=backbone.embed(sentences) if sentences else _kept(brought.instructions, same),
        choices=backbone.embed(words) if words else _kept(brought.choices, same),
        centroids=(
            prototypes(backbone.features(examples), CENTROIDS)
            if examples
            else _kept(brought.centroids, same)
        ),
        vectors=vectors,
    )


def _said(manifest: Manifest) -> tuple[str, ...]:
    """The title, where somebody gave one: an id says nothing of a task."""
    return (manifest.title,) if manifest.title != manifest.id else ()


def _kept(rows: Tensor | None, same: bool) -> Tensor | None:
    return rows if same else None
