"""Manifests say what they may and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from experts.manifest import Label, Manifest, Wording


@pytest.mark.parametrize(
    "id", ["", ".hidden", "../up", "a/b", "a\\b", "a b", "a\n", "-a", "a" * 129, "é"]
)
def test_ids_that_are_no_folder_names_are_refused(
    manifest_of: Callable[..., Manifest], id: str
) -> None:
    with pytest.raises(ValidationError, match="id"):
        manifest_of(id)


@pytest.mark.parametrize("id", ["a", "A.b-c_d", "0", "a" * 128])
def test_ids_may_be_any_plain_name(manifest_of: Callable[..., Manifest], id: str) -> None:
    assert manifest_of(id).id == id


def test_a_manifest_survives_json(manifest_of: Callable[..., Manifest]) -> None:
    label = Label(value="wet", wordings=(Wording(value="rainy", description="water falls"),))
    manifest = manifest_of("weather", labels=(label,), tags=("sky",), scores={"test": 0.5})
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest


def test_unknown_fields_and_bad_sums_are_errors(manifest_of: Callable[..., Manifest]) -> None:
    with pytest.raises(ValidationError, match="colour"):
        manifest_of("a", colour="red")
    with pytest.raises(ValidationError, match="files"):
        manifest_of("a", files={"adapter_config.json": "123"})


def test_training_sees_the_name_and_the_wordings_but_not_the_unseen() -> None:
    label = Label(
        value="wet",
        wordings=(Wording(value="rainy", description="water falls"),),
        unseen=Wording(value="drenched"),
    )
    assert [w.text for w in label.known] == ["wet", "rainy: water falls"]


def test_the_merge_group_is_the_kind_in_older_manifests(
    manifest_of: Callable[..., Manifest],
) -> None:
    stored = manifest_of("old", kind="bottleneck").model_dump(mode="json")
    del stored["group"]
    assert Manifest.model_validate(stored).merge_group == "bottleneck"
    assert manifest_of("new", group="bottleneck/48/0").merge_group == "bottleneck/48/0"
