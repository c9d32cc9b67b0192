"""`sailplane experts` on a small library: what it shows, adds, removes, and finds wrong."""

import json
import shutil
from pathlib import Path

import pytest


@pytest.fixture
def experts(run, library):
    """`experts("list")` on the small library."""
    return lambda command, *more, **kw: run(
        "experts", command, *more, "--library", str(library), **kw
    )


def spoil(library: Path, id: str) -> None:
    path = library / id / "adapter_model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def test_list_shows_each_expert(experts):
    result = experts("list")
    assert result.exit_code == 0
    rows = [line for line in result.stdout.splitlines() if "About" in line]
    assert [row.split()[1] for row in rows] == ["mood", "weather"]
    assert "CC0" in rows[0]


def test_list_tells_what_cannot_be_served_and_why(experts, library):
    (library / "mood" / "adapter_model.safetensors").write_bytes(b"cut short")
    result = experts("list")
    assert result.exit_code == 0
    assert "mood cannot be served: adapter_model.safetensors" in result.output
    told = json.loads(experts("list", "--json").stdout)
    assert [e["id"] for e in told["experts"]] == ["weather"]
    assert set(told["bad"]) == {"mood"}


def test_show_prints_manifest_and_artefacts(experts):
    told = json.loads(experts("show", "weather").stdout)
    assert told["title"] == "About weather"
    assert [label["value"] for label in told["labels"]] == ["yes", "no"]
    assert told["artefacts"] == {"instructions": [2, 32], "sites": {}}


def test_show_of_an_unknown_expert_names_the_closest(experts):
    result = experts("show", "wether")
    assert result.exit_code == 1
    assert "Did you mean weather?" in result.output


def test_a_missing_library_is_told(run):
    result = run("experts", "list", "--library", "nowhere")
    assert result.exit_code == 1
    assert "nowhere: there is no such library" in result.output


def test_add_takes_a_folder_that_loads_on_the_backbone(experts, library, tmp_path):
    shutil.copytree(library / "mood", tmp_path / "given")
    (tmp_path / "given" / "expert.json").unlink()  # as PEFT leaves it
    result = experts(
        "add", str(tmp_path / "given"), "--id", "tone", "--label", "warm", "--label", "cold",
        "--instruction", "Judge the tone.", "--backbone", "tiny-random",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "no router" not in result.output
    told = json.loads(experts("show", "tone").stdout)
    assert told["artefacts"]["instructions"] == [1, 32]
    assert told["artefacts"]["choices"] == [2, 32]
    assert told["instructions"] == ["Judge the tone."]
    assert [label["value"] for label in told["labels"]] == ["warm", "cold"]


def test_add_says_how_an_expert_becomes_routable(experts, library, tmp_path):
    shutil.copytree(library / "mood", tmp_path / "given")
    (tmp_path / "given" / "expert.json").unlink()
    (tmp_path / "texts").write_text("It is warm.\n\nIt is cold.\n")
    folder, backbone = str(tmp_path / "given"), ("--backbone", "tiny-random")
    silent = experts("add", folder, "--id", "silent", *backbone)
    assert "without --instruction or --examples" in silent.output
    shown = experts(
        "add", folder, "--id", "shown", "--examples", str(tmp_path / "texts"), *backbone
    )
    assert (shown.exit_code, "no router" in shown.output) == (0, False)
    told = json.loads(experts("show", "shown").stdout)
    assert told["artefacts"]["centroids"] == [3, 32]


def test_replace_and_roll_back(experts, library, tmp_path):
    shutil.copytree(library / "mood", tmp_path / "given")
    replaced = experts(
        "add", str(tmp_path / "given"), "--title", "Newer", "--replace", "--backbone", "tiny-random"
    )
    assert replaced.exit_code == 0, replaced.output
    told = json.loads(experts("show", "mood").stdout)
    first, second = told["versions"]
    assert (told["title"], f"mood@{second}" in replaced.output) == ("Newer", True)
    assert experts("rollback", "mood", str(first)).exit_code == 0
    assert json.loads(experts("show", "mood").stdout)["title"] != "Newer"
    assert json.loads(experts("show", f"mood@{second}").stdout)["title"] == "Newer"
    gone = experts("rollback", "mood", "99")
    assert gone.exit_code == 1
    assert "there are" in gone.output


def test_add_refuses_an_id_that_is_taken(experts, library, tmp_path):
    shutil.copytree(library / "mood", tmp_path / "given")
    result = experts("add", str(tmp_path / "given"), "--backbone", "tiny-random")
    assert result.exit_code == 1
    assert "already" in result.output


def test_remove_asks_first(experts, library):
    assert experts("remove", "mood", input="n\n").exit_code == 1
    assert (library / "mood").is_dir()
    assert experts("remove", "mood", input="y\n").exit_code == 0
    assert not (library / "mood").exists()


def test_remove_does_not_ask_when_told_so(experts, library):
    assert experts("remove", "mood", "--yes").exit_code == 0
    assert not (library / "mood").exists()


def test_verify_ends_with_1_when_a_file_was_altered(experts, library):
    sound = experts("verify")
    assert (sound.exit_code, sound.stdout) == (0, "mood: ok\nweather: ok\n")
    spoil(library, "weather")
    altered = experts("verify")
    assert altered.exit_code == 1
    assert "mood: ok" in altered.stdout
    assert "weather: adapter_model.safetensors is not the file" in altered.stdout


def test_embed_fills_a_library_for_another_embedder(run, library, sentence_model):
    """Told twice, it has nothing left to do; the experts themselves stay as they are."""
    before = {p: p.read_bytes() for p in library.glob("*/*")}
    options = ("--library", str(library), "--backbone", "tiny-random")
    for done in (1, 2):  # `mood` has no vectors of words to make anew
        result = run("experts", "embed", *options, "--embedder", str(sentence_model))
        assert result.exit_code == 0, result.output
        assert f"{done} of 2 experts are embedded already" in result.output
    assert {p: p.read_bytes() for p in before} == before
    shared = run("experts", "embed", *options)
    assert "2 of 2 experts are embedded already" in shared.output


def test_tags_are_given_listed_and_held_to_their_form(experts, library, tmp_path):
    shutil.copytree(library / "mood", tmp_path / "given")
    added = experts("add", str(tmp_path / "given"), "--id", "tone", "--tag", "team-a",
                    "--tag", "public", "--backbone", "tiny-random")  # fmt: skip
    assert added.exit_code == 0, added.output
    told = json.loads(experts("list", "--json", "--tag", "team-a").stdout)
    (expert,) = told["experts"]
    assert expert["tags"] == ["team-a", "public"]
    assert json.loads(experts("list", "--json", "--tag", "nobody").stdout)["experts"] == []
    assert "team-a, public" in experts("list").stdout
    odd = experts("add", str(tmp_path / "given"), "--id", "odd", "--tag", "no tag",
                  "--backbone", "tiny-random")  # fmt: skip
    assert "'no tag' is no tag" in odd.output
    refused = experts("list", "--tag", "no tag")
    assert refused.exit_code == 1
    assert "'no tag' is no tag" in refused.output


def test_an_alias_is_given_shown_moved_and_taken_away(experts):
    assert "prod stands for weather now" in experts("alias", "prod", "weather").output
    (version,) = json.loads(experts("show", "prod").stdout)["versions"]
    assert experts("alias", "frozen", f"weather@{version}").exit_code == 0
    shown = json.loads(experts("show", "weather").stdout)["aliases"]
    assert shown == {"frozen": f"weather@{version}", "prod": "weather"}
    assert json.loads(experts("list", "--json").stdout)["aliases"] == shown
    assert "aliases" in experts("list").stdout
    refused = experts("remove", "weather", "--yes")
    assert refused.exit_code == 1
    assert "aliases stand for it: frozen, prod" in refused.output.replace("\n", " ")
    assert experts("alias", "prod", "mood").exit_code == 0
    assert experts("alias", "frozen", "--remove").exit_code == 0
    assert experts("remove", "weather", "--yes").exit_code == 0
    assert experts("alias", "prod").exit_code == 2
    assert experts("alias", "prod", "mood", "--remove").exit_code == 2
    assert experts("alias", "mood", "mood").exit_code == 1
