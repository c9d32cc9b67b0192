"""Files of strangers are refused with a reason; our own folders are old or new, never half."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import given
from hypothesis import strategies as st

from experts.errors import BadExpert, CorruptExpert, ForbiddenSource, UnsupportedExpert
from experts.files import (
    parse_json,
    parse_tensors,
    read_bytes,
    read_json,
    read_tensors,
    refuse_pickles,
    resolve_inside,
    sha256_of,
)

SOUND = safetensors.torch.save(
    {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.float16)}, {"who": "us"}
)
NAME = Path("x.safetensors")


def test_tensors_and_metadata_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(SOUND)
    file = read_tensors(path)
    assert file.metadata["who"] == "us"
    assert torch.equal(file.tensors["a"], torch.arange(6.0).view(2, 3))
    assert file.tensors["b"].dtype == torch.float16


@given(st.integers(0, len(SOUND) - 1))
def test_truncated_tensors_are_corrupt(size: int) -> None:
    with pytest.raises(CorruptExpert):
        parse_tensors(NAME, SOUND[:size])


@given(st.integers(0, len(SOUND) * 8 - 1))
def test_a_flipped_bit_is_caught_or_changes_a_value_only(bit: int) -> None:
    data = bytearray(SOUND)
    data[bit // 8] ^= 1 << bit % 8
    try:
        file = parse_tensors(NAME, bytes(data))
    except BadExpert:
        return
    assert sum(t.numel() * t.element_size() for t in file.tensors.values()) == 32


@given(st.binary(max_size=200))
def test_garbage_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptExpert):
        parse_tensors(NAME, data)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5) | st.just("F32"),
                    lambda inner: st.lists(inner, max_size=3)
                    | st.dictionaries(st.sampled_from(
                        ["a", "dtype", "shape", "data_offsets", "__metadata__"]), inner),
                    max_leaves=12))  # fmt: skip
def test_any_json_as_a_header_is_refused_or_read(header: object) -> None:
    text = json.dumps(header).encode()
    try:
        file = parse_tensors(NAME, len(text).to_bytes(8, "little") + text + bytes(16))
    except BadExpert:
        return
    assert all(t.is_floating_point() for t in file.tensors.values())


@pytest.mark.parametrize("size", [10**12, 2**64 - 1, len(SOUND)])
def test_a_header_larger_than_the_file_is_refused_unread(size: int) -> None:
    with pytest.raises(CorruptExpert, match=str(size)):
        parse_tensors(NAME, size.to_bytes(8, "little") + SOUND[8:])


def test_a_shape_larger_than_the_file_is_refused() -> None:
    header = {"a": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}}
    text = json.dumps(header).encode()
    with pytest.raises(CorruptExpert, match="damaged"):
        parse_tensors(NAME, len(text).to_bytes(8, "little") + text + bytes(16))


def test_tensors_that_are_not_floats_are_refused() -> None:
    with pytest.raises(UnsupportedExpert, match="int64"):
        parse_tensors(NAME, safetensors.torch.save({"a": torch.arange(3)}))


def test_oversized_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(SOUND)
    assert read_bytes(path, len(SOUND)) == SOUND
    with pytest.raises(CorruptExpert, match="allowed") as caught:
        read_tensors(path, len(SOUND) - 1)
    assert caught.value.details == {"file": "x.safetensors", "limit": len(SOUND) - 1}


@pytest.mark.parametrize("said", ["{}", '{"a": 1, "b": 2}', " " * 17])
def test_a_file_that_is_replaced_meanwhile_is_read_whole_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    path, new, opened = tmp_path / "x.json", tmp_path / "new", Path.open
    path.write_text('{"a": 1}')
    new.write_text(said)
    monkeypatch.setattr(Path, "open", lambda self, mode: opened(new.replace(self), mode))
    if len(said) <= 16:
        assert read_bytes(path, 16).decode() == said
    else:
        with pytest.raises(CorruptExpert, match="has 17 bytes, and 16 are allowed"):
            read_bytes(path, 16)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"nonsense", b"\xff\xfe{}", b'{"a": NaN}', b'{"a": 1', b"[" * 100_000],
)
def test_what_is_not_a_json_object_is_corrupt(data: bytes) -> None:
    with pytest.raises(CorruptExpert):
        parse_json(Path("x.json"), data)


def test_missing_files_folders_and_pipes_are_corrupt(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("nothing", "folder", "pipe"):
        with pytest.raises(CorruptExpert, match=name):
            read_json(tmp_path / name)
    with pytest.raises(CorruptExpert):
        sha256_of(tmp_path / "nothing")


def test_symlinks_may_not_leave_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text("{}")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "inner.json").write_text('{"a": 1}')
    (folder / "near.json").symlink_to("inner.json")
    (folder / "far.json").symlink_to("../secret.json")
    (folder / "loop.json").symlink_to("loop.json")
    assert read_json(folder / "near.json") == {"a": 1}
    with pytest.raises(CorruptExpert, match="leaves its folder"):
        read_json(folder / "far.json")
    with pytest.raises(CorruptExpert, match="cannot be read"):
        read_json(folder / "loop.json")


def test_tensors_come_in_the_order_of_their_names() -> None:
    names = [f"layer.{i}" for i in range(40)]
    data = safetensors.torch.save({name: torch.zeros(1) for name in reversed(names)})
    assert list(parse_tensors(NAME, data).tensors) == sorted(names)


def test_sources_are_confined_to_the_roots(tmp_path: Path) -> None:
    inside, outside = tmp_path / "roots" / "a", tmp_path / "elsewhere"
    inside.mkdir(parents=True)
    outside.mkdir()
    (tmp_path / "roots" / "link").symlink_to(outside)
    roots = [tmp_path / "roots"]
    assert resolve_inside(inside, roots) == inside.resolve()
    for source in (outside, tmp_path / "roots" / ".." / "elsewhere", tmp_path / "roots" / "link"):
        with pytest.raises(ForbiddenSource):
            resolve_inside(source, roots)
    with pytest.raises(ForbiddenSource, match="none is allowed by --adapter-root"):
        resolve_inside(inside, [])
    with pytest.raises(BadExpert, match="no such folder"):
        resolve_inside(tmp_path / "roots" / "b", roots)


@pytest.mark.parametrize("name", ["a\x00b", "a" * 300, "loop", "\ud800"])
def test_what_cannot_be_a_path_is_bad(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(BadExpert, match="folder on this machine"):
        resolve_inside(tmp_path / name, [tmp_path])


@pytest.mark.parametrize("suffix", ["bin", "pt", "pth", "ckpt", "pkl"])
def test_pickles_are_refused_with_the_way_out(tmp_path: Path, suffix: str) -> None:
    refuse_pickles(tmp_path)
    (tmp_path / f"adapter_model.{suffix}").write_bytes(b"\x80\x04")
    with pytest.raises(UnsupportedExpert, match="safe_serialization=True"):
        refuse_pickles(tmp_path)
