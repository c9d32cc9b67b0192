"""What routers can know of an expert without training it further: what is said of it, and weights.

One sentence makes an expert routable, a few examples do it better, and Arrow prototypes need
neither. Gates need labelled examples and time: `routers.fitting.artefacts` fits them.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from experts.artefacts import Artefacts
from experts.backbones import Backbone
from experts.embedder import Embedder
from experts.manifest import Manifest
from experts.weights import ExpertWeights
from routers.fitting.arrow import arrow_coefficients
from routers.fitting.inputs import with_inputs
from routers.fitting.wording import sentences_of, words_of
from routers.metric import Metric


def describe(
    backbone: Backbone,
    embedder: Embedder,
    expert: ExpertWeights,
    manifest: Manifest,
    brought: Artefacts,
    examples: Sequence[str] = (),
    metric: Metric | None = None,
) -> Artefacts:
    """Artefacts of an expert that joins a library.

    Args:
        manifest: its instructions (or else its title) and labels are embedded.
        brought: what came with it; it stays where nothing newer is known, except words that
            another embedder saw.
        examples: inputs of its task; what they tell takes the place of what was brought.
        metric: the library's.
    """
    same = brought.embedder == embedder.fingerprint
    sentences, words = sentences_of(manifest), words_of(manifest)
    vectors = dict(brought.vectors)
    if "arrow" not in vectors and (arrows := arrow_coefficients(expert)):
        vectors["arrow"] = arrows
    told = Artefacts(
        embedder.fingerprint,
        instructions=embedder.embed(sentences) if sentences else _kept(brought.instructions, same),
        choices=embedder.embed(words) if words else _kept(brought.choices, same),
        centroids=brought.centroids,
        vectors=vectors,
        inputs=brought.inputs,
        seen=brought.seen,
    )
    return with_inputs(told, backbone, examples, metric) if examples else told


def _kept(rows: Tensor | None, same: bool) -> Tensor | None:
    return rows if same else None
