"""The file of keys: what is in force when it changes, breaks or goes."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import mkdtemp

import pytest
from pydantic import ValidationError

from server.access.keyfile import KeyStore, change_keys, read_keys, write_keys
from server.access.keys import Limits, make_key
from server.errors import BadKeyFile


@pytest.fixture
def team():
    return make_key("team", ["infer", "admin"], ["a"], Limits(concurrent=3))


@pytest.fixture
def path(tmp_path, team):
    write_keys(tmp_path / "keys.json", [team[0]])
    return tmp_path / "keys.json"


def test_what_is_written_is_read(path, team):
    assert read_keys(path) == (team[0],)


def test_two_keys_of_one_name_are_not_written(path, team):
    before = path.read_bytes()
    with pytest.raises(ValidationError, match="two keys have the name 'team'"):
        write_keys(path, [team[0], make_key("team", ["infer"])[0]])
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "the file: Invalid JSON"),
        ('{"keys": [{}]}', "keys.0.id: Field required"),
        ('{"kees": []}', "kees: Extra inputs"),
    ],
)
def test_a_file_that_says_no_keys_is_refused_with_the_place(path, text, said):
    path.write_text(text)
    with pytest.raises(BadKeyFile, match=said):
        KeyStore(path)


def test_an_error_does_not_repeat_what_the_file_says(path):
    path.write_text('{"keys": [{"id": "sp-pasted-by-mistake"}]}')
    with pytest.raises(BadKeyFile) as caught:
        read_keys(path)
    assert "pasted" not in str(caught.value)


def test_no_file_at_the_start_is_an_error(tmp_path):
    with pytest.raises(BadKeyFile, match="No such file"):
        KeyStore(tmp_path / "none.json")


def test_keys_come_and_go_with_the_file(path, team):
    store = KeyStore(path)
    other, token = make_key("other", ["infer"])
    write_keys(path, [other])
    store.look()
    assert store.ring.find(token) == other
    assert store.ring.find(team[1]) is None
    write_keys(path, [])
    store.look()
    assert store.ring.keys == ()


def test_a_file_that_breaks_or_goes_leaves_the_keys_as_they_were(path, team, caplog):
    store = KeyStore(path)
    whole = path.read_bytes()
    path.write_text("{")
    for _ in range(3):
        store.look()
    assert store.ring.find(team[1]) == team[0]
    assert caplog.text.count("could not be read again") == 1
    path.unlink()
    store.look()
    assert store.ring.find(team[1]) == team[0]
    path.write_bytes(whole.replace(b'"team"', b'"crew"'))
    store.look()
    found = store.ring.find(team[1])
    assert found is not None
    assert found.name == "crew"


def no_descriptor(_):
    raise OSError(errno.EMFILE, "Too many open files")


def test_a_file_that_could_not_be_read_for_a_moment_is_read_again(path, team, monkeypatch):
    """As where no descriptor was left, or its owner is put right: time and size stay the same."""
    store = KeyStore(path)
    write_keys(path, [])
    with monkeypatch.context() as without:
        without.setattr(Path, "read_bytes", no_descriptor)
        store.look()
    assert store.ring.find(team[1]) == team[0]
    store.look()
    assert store.ring.keys == ()


def test_a_change_keeps_mode_and_owner(path):
    path.chmod(0o640)
    owner = path.stat().st_uid, path.stat().st_gid
    change_keys(path, lambda keys: keys)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert (path.stat().st_uid, path.stat().st_gid) == owner


def test_a_file_that_did_not_change_is_not_read_again(path):
    store = KeyStore(path)
    ring = store.ring
    store.look()
    assert store.ring is ring
    os.utime(path, ns=(1, 1))
    store.look()
    assert store.ring is not ring


def test_keys_of_a_mounted_secret_follow_it(tmp_path, team):
    """The kubelet writes a new folder, swaps a link to it, and deletes the old one."""

    def mount(keys):
        at_last = links[-1].resolve() if links[-1].exists() else None
        fresh = Path(mkdtemp(prefix="..", dir=tmp_path))
        write_keys(fresh / "keys.json", keys)
        (tmp_path / "..data_tmp").symlink_to(fresh.name)
        (tmp_path / "..data_tmp").rename(links[-1])
        if at_last:
            shutil.rmtree(at_last)

    links = tmp_path / "keys.json", tmp_path / "..data"
    links[0].symlink_to("..data/keys.json")
    mount([team[0]])
    store = KeyStore(links[0])
    other, token = make_key("crew", ["infer", "admin"], ["a"], Limits(concurrent=3))
    mount([other])
    store.look()
    assert store.ring.find(token) == other
    assert store.ring.find(team[1]) is None
    mount([])
    store.look()
    assert store.ring.keys == ()


def test_changes_at_one_time_lose_none(path, team):
    made = [make_key(f"key-{i}", ["infer"])[0] for i in range(24)]
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda key: change_keys(path, lambda there: [*there, key]), made))
    assert {key.name for key in read_keys(path)} == {"team", *(key.name for key in made)}


def test_a_change_that_fails_leaves_the_file_as_it_was(path):
    before = path.read_bytes()
    with pytest.raises(ZeroDivisionError):
        change_keys(path, lambda there: [1 / 0])
    assert path.read_bytes() == before
    path.write_bytes(b"{")
    with pytest.raises(BadKeyFile):
        change_keys(path, lambda there: [])
    assert path.read_bytes() == b"{"
