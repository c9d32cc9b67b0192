"""`python -m benchmarks.generation.ship`: the trained causal model as a library that is shipped.

Writes OUT/<backbone> and the experts in half precision, not yet fitted, and their tasks as folders
for `sailplane fit` and `sailplane evaluate`. What is trained already lies where
`benchmarks.generation.train` put it. `make library-text` does all of it.
"""

from __future__ import annotations

import argparse
import json
import shutil
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import safetensors.torch
import torch

from benchmarks.generation.backbone import COURSES, open_backbone
from benchmarks.generation.checkpoints import save
from benchmarks.generation.experts import ALPHA, RANK, course_of
from benchmarks.generation.tasks import TASKS, Task
from benchmarks.generation.wordings import SAID, TRIED
from benchmarks.places import CACHE, WRITER
from experts import backbones
from experts.entries import CONFIG, WEIGHTS
from experts.library import Library
from experts.manifest import BackboneRef, Manifest
from experts.writing import seal

FAMILY = "causal"
BACKBONE = "byte-llama-3m"
TRAIN, TEST = 600, 200
"""Inputs a task; those to learn of are in part set aside for calibration."""
SOURCE, LICENCE = "made by code: benchmarks/generation", "Apache-2.0"


def main() -> None:
    """Make what the command line names."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.generation.ship", description=__doc__.split("\n\n")[1]
    )
    parser.add_argument("--trained", type=Path, default=CACHE / "generation" / FAMILY)
    parser.add_argument("--out", type=Path, default=WRITER)
    parser.add_argument("--tasks", type=Path, default=CACHE / "writer")
    given = parser.parse_args()
    if not (given.trained / "adapters").is_dir():
        parser.exit(1, f"Error: {given.trained}: nothing is trained; run .train first\n")
    write_tasks(given.tasks)
    write_library(given.trained, given.out)


def write_tasks(root: Path, train: int = TRAIN, test: int = TEST) -> None:
    """Task folders of all tasks below `root`, in the form that `sailplane` reads."""
    for task in TASKS.values():
        folder = root / task.id
        folder.mkdir(parents=True, exist_ok=True)
        for name, inputs in (("train", inputs_of(task, train)), ("test", tests_of(task, test))):
            lines = [json.dumps({"input": x, "output": task.answer(x)}) for x in inputs]
            (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
        about = {**wordings_of(task), "source_repo": SOURCE, "licence": LICENCE}
        (folder / "task.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")


def inputs_of(task: Task, count: int) -> list[str]:
    """Different inputs of the train split: the same for all tasks whose inputs look the same.

    So nothing but an instruction can tell these apart, not even by chance.
    """
    first = next(t for t in TASKS.values() if t.looks == task.looks)
    drawn = islice(first.stream("shipped"), 10 * count)
    return list(dict.fromkeys(text for text, _ in drawn))[:count]


def tests_of(task: Task, count: int) -> list[str]:
    """Different test inputs."""
    return [text for text, _ in task.tests(count)]


def wordings_of(task: Task) -> dict[str, object]:
    """What is said of a task: as callers say it first, for calibration asks by the first few."""
    *said, asked = SAID[task.id]
    return {
        "title": task.title,
        "instructions": [*said, *task.instructions],
        "instruction_unseen": asked,
        "samples": [{"input": TRIED[task.id], "answer": task.answer(TRIED[task.id])}],
    }


def write_library(trained: Path, root: Path) -> None:
    """A library of the backbone and the experts at `trained`, in the place of what was at `root`.

    A README and settings that lie there stay.
    """
    for old in root.glob("*"):
        if old.is_dir():
            shutil.rmtree(old)
    for old in (*root.glob(".versions"), *root.glob("calibration*")):
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    save(open_backbone(FAMILY, trained / "backbone").half(), FAMILY, root / BACKBONE)
    backbone = backbones.open_backbone(str(root / BACKBONE))
    library = Library.open(root, fingerprint=backbone.fingerprint, backbone_id=backbone.id)
    ref = BackboneRef(id=backbone.id, fingerprint=backbone.fingerprint)
    with TemporaryDirectory() as made:
        for task in TASKS.values():
            source = Path(made) / task.id
            _write_expert(source, trained / "adapters" / task.id, manifest_of(task, ref))
            library.add(source, sites=backbone.sites, roots=(source,))


def manifest_of(task: Task, backbone: BackboneRef) -> Manifest:
    """What an expert says of itself."""
    course = course_of(task)
    recipe = {"rank": RANK, "alpha": ALPHA, "steps": course.steps, "batch": course.batch,
              "rate": course.rate, "backbone_steps": COURSES[FAMILY].steps}  # fmt: skip
    return Manifest.model_validate(
        {
            "id": task.id, "kind": "lora", "backbone": backbone, **wordings_of(task),
            "provenance": {"source": SOURCE, "licence": LICENCE, "recipe": json.dumps(recipe)},
        }
    )  # fmt: skip


def _write_expert(folder: Path, adapter: Path, manifest: Manifest) -> None:
    """An adapter of PEFT's, in half precision, with its manifest."""
    folder.mkdir()
    shutil.copyfile(adapter / CONFIG, folder / CONFIG)
    tensors = safetensors.torch.load_file(adapter / WEIGHTS)
    halved = {name: tensor.to(torch.float16) for name, tensor in tensors.items()}
    safetensors.torch.save_file(halved, folder / WEIGHTS, {"format": "pt"})
    seal(folder, manifest)


if __name__ == "__main__":
    main()
