"""A library's constants on disk: what is written is read, and what was altered is refused."""

import json

import pytest
import torch

from experts import constants as constants_module
from experts.constants import (
    CALIBRATION,
    read_constant_tensors,
    read_constants_and_tensors,
    write_constants,
)
from experts.errors import CorruptExpert, StaleConstants
from experts.library import Library

CONSTANTS = {"version": "v1", "beta": 3.0, "views": {"input": 60.5}}
TENSORS = {"map": torch.arange(6.0).reshape(2, 3), "scale": torch.tensor(2.5)}


def blobs(root):
    return sorted(p.name for p in root.glob("*.safetensors"))


def test_constants_and_tensors_are_read_as_written(tmp_path):
    halves = {n: t.half() for n, t in TENSORS.items()}
    stored = write_constants(tmp_path, CONSTANTS, halves, None)
    assert stored == json.loads((tmp_path / CALIBRATION).read_text())
    assert {n: stored[n] for n in CONSTANTS} == CONSTANTS
    read = read_constant_tensors(tmp_path, stored)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == torch.float32
        assert torch.equal(read[name], tensor)


def test_a_transposed_tensor_is_written_as_it_reads(tmp_path):
    stored = write_constants(tmp_path, {}, {"map": TENSORS["map"].T}, None)
    assert torch.equal(read_constant_tensors(tmp_path, stored)["map"], TENSORS["map"].T)


def test_without_new_tensors_the_old_ones_stay(tmp_path):
    before = write_constants(tmp_path, CONSTANTS, TENSORS, None)
    after = write_constants(tmp_path, {"version": "v2"}, None, before)
    assert after == {"version": "v2", "tensors": before["tensors"]}
    assert torch.equal(read_constant_tensors(tmp_path, after)["map"], TENSORS["map"])


def test_new_tensors_replace_the_old_file(tmp_path):
    before = write_constants(tmp_path, CONSTANTS, TENSORS, None)
    after = write_constants(tmp_path, CONSTANTS, {"map": torch.ones(2)}, before)
    assert before["tensors"] != after["tensors"]
    assert blobs(tmp_path) == [after["tensors"]]
    write_constants(tmp_path, CONSTANTS, {"map": torch.ones(2)}, after)
    assert blobs(tmp_path) == [after["tensors"]]


def test_constants_that_grew_from_others_than_lie_there_are_refused(tmp_path):
    """They would name tensors that are gone, and undo what was fitted meanwhile."""
    Library.open(tmp_path).write_calibration(CONSTANTS, TENSORS)
    slow = Library.open(tmp_path)
    Library.open(tmp_path).write_calibration({"version": "v2"}, {"map": torch.ones(2)})
    lies_there = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(StaleConstants, match="changed the library's constants"):
        slow.write_calibration({**CONSTANTS, "reference": {}})
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == lies_there
    slow.refresh()
    slow.write_calibration({"version": "v2", "reference": {}})
    assert list(Library.open(tmp_path).calibration_tensors()) == ["map"]


def test_there_may_be_none(tmp_path):
    assert read_constant_tensors(tmp_path, None) == {}
    stored = write_constants(tmp_path, CONSTANTS, None, None)
    assert stored["tensors"] is None
    assert read_constant_tensors(tmp_path, stored) == {}
    assert blobs(tmp_path) == []


def test_an_altered_file_is_refused(tmp_path):
    stored = write_constants(tmp_path, CONSTANTS, TENSORS, None)
    path = tmp_path / stored["tensors"]
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptExpert, match=r"not the file that calibration\.json names"):
        read_constant_tensors(tmp_path, stored)


def test_a_missing_file_is_refused(tmp_path):
    stored = write_constants(tmp_path, CONSTANTS, TENSORS, None)
    (tmp_path / stored["tensors"]).unlink()
    with pytest.raises(CorruptExpert):
        read_constant_tensors(tmp_path, stored)


def test_a_name_that_points_elsewhere_is_refused(tmp_path):
    outside, root = tmp_path / "outside", tmp_path / "root"
    for folder in (outside, root):
        folder.mkdir()
    stored = write_constants(outside, CONSTANTS, TENSORS, None)
    with pytest.raises(CorruptExpert):
        read_constant_tensors(root, {"tensors": f"../outside/{stored['tensors']}"})


def test_infinity_is_no_constant_and_leaves_what_was_there(tmp_path):
    before = write_constants(tmp_path, CONSTANTS, TENSORS, None)
    with pytest.raises(ValueError, match="Out of range float"):
        write_constants(tmp_path, {"beta": float("inf")}, None, before)
    assert json.loads((tmp_path / CALIBRATION).read_text()) == before


def test_a_library_reads_them_when_it_is_opened_again(tmp_path):
    library = Library.open(tmp_path)
    assert library.calibration_tensors() == {}
    library.write_calibration(CONSTANTS, TENSORS)
    again = Library.open(tmp_path)
    assert again.calibration == library.calibration
    assert torch.equal(again.calibration_tensors()["map"], TENSORS["map"])


def test_constants_that_another_process_replaces_meanwhile_are_read_anew(tmp_path, monkeypatch):
    """They are read with the tensors of their own calibration, which deletes those before."""
    before = write_constants(tmp_path, CONSTANTS, TENSORS, None)
    read = constants_module.read_constants

    def slowly(root):
        found = read(root)
        monkeypatch.setattr(constants_module, "read_constants", read)
        write_constants(root, {"version": "v2"}, {"map": torch.ones(2)}, before)
        return found

    monkeypatch.setattr(constants_module, "read_constants", slowly)
    constants, tensors = read_constants_and_tensors(tmp_path)
    assert constants["version"] == "v2"
    assert torch.equal(tensors["map"], torch.ones(2))


def test_constants_whose_tensors_are_gone_for_good_are_refused(tmp_path):
    stored = write_constants(tmp_path, CONSTANTS, TENSORS, None)
    (tmp_path / stored["tensors"]).unlink()
    with pytest.raises(CorruptExpert):
        read_constants_and_tensors(tmp_path)
