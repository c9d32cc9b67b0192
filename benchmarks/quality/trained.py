"""What is kept of the inputs that experts were trained on, computed once a task and kept on disk.

Some of their features, for the rows that look neighbours up; and how all of them vary, for the
metric of a library that has never seen one of the tasks. Holds no text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from experts.atomic import atomic_write
from experts.backbones import TextEncoder
from experts.training.data import read_tasks
from routers.fitting.variation import Variation
from server.calibrate import features_of

BANK = 1000
"""Training inputs kept of each expert, as PHATGOOSE's retrieval baseline keeps them."""


@dataclass(frozen=True, eq=False)
class Trained:
    """Of one task's training inputs.

    Attributes:
        examples: (M, D) half-way states of the first `BANK`, in half precision.
        mean: (F,) and covariance: (F, F) of the features of as many as a calibration looks at.
    """

    examples: Tensor
    mean: Tensor
    covariance: Tensor

    @classmethod
    def of(cls, feature_MF: Tensor, backbone: TextEncoder) -> Trained:
        """Of the features of a task's training inputs, in their order."""
        variation = Variation.of({"": feature_MF})
        examples_MD = backbone.halfway(feature_MF[:BANK]).half()
        mean_F, covariance_FF = variation.means[""], variation.covariances[""]
        return cls(examples_MD, mean_F.float(), covariance_FF.float())


def read_trained(path: Path, task: Path, backbone: TextEncoder) -> Trained:
    """What is kept at `path` of a task's folder; made where it is not there."""
    if path.exists():
        return Trained(**safetensors.torch.load_file(path))
    (feature_MF,) = features_of(backbone, read_tasks(task.parent, [task.name])).values()
    trained = Trained.of(feature_MF, backbone)
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = {name: tensor.contiguous() for name, tensor in asdict(trained).items()}
    atomic_write(path, safetensors.torch.save(kept))
    return trained


def variation_of(trained: Mapping[str, Trained]) -> Variation:
    """How the inputs of these tasks vary."""
    return Variation(
        {id: t.mean.double() for id, t in trained.items()},
        {id: t.covariance.double() for id, t in trained.items()},
    )
