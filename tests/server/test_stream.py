"""A stream of tasks against a server that runs: each expert joins, and nothing old is touched."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from starlette.testclient import TestClient

from experts.backbones.tiny import tiny_encoder
from experts.library import Library
from experts.training.build import read_cards
from experts.training.data import Task
from experts.training.recipe import Recipe
from routers.calibration import Calibration
from routers.fitting.inputs import mean_and_spread
from routers.fitting.variation import Variation
from server.build import build_app
from server.errors import RemoteError
from server.remote import RemoteLibrary
from server.settings import Settings
from server.stream import Stream

TASKS = Path(__file__).parents[1] / "data" / "tasks"
CARDS = Path(__file__).parents[2] / "library" / "tasks"
NAMES = ("trec", "sst2", "openbookqa")
RECIPE = Recipe(rank=2, batch_size=8, epochs=1, min_steps=3, learning_rate=1e-2)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def make(tmp_path):
    """`make()`: a stream into a folder below the server's adapter root."""

    def made(root=tmp_path / "streams" / "one", recipe=RECIPE, **more):
        backbone = tiny_encoder()
        return Stream(backbone, backbone, root, read_cards(CARDS), recipe, **more)

    return made


@pytest.fixture
def server(tmp_path):
    """A server of an empty library, and its client."""
    (tmp_path / "served").mkdir()
    app = build_app(
        Settings(backbone="tiny-random", library=tmp_path / "served", threads=1, scan_seconds=0,
                 router="dam", adapter_roots=(tmp_path / "streams",))
    )  # fmt: skip
    with TestClient(app) as client:
        yield client


def of(*names):
    return [Task(TASKS / name) for name in names]


def quiet(_what):
    return lambda *_: None


def ask(server, name, model="auto"):
    """A question of a task; the router sees the input alone."""
    example = Task(TASKS / name).test[0]
    choices = [{"value": option} for option in example.options]
    body = {"model": model, "input": example.input,
            "questions": [{"type": "choice", "choices": choices}]}  # fmt: skip
    response = server.post("/v1/decisions", json=body)
    assert response.status_code == 200, response.text
    return response.json()


def chosen(answer):
    return {e["id"] for e in answer["routing"]["questions"][0]["selection"]["experts"]}


@pytest.mark.parametrize("kind", ["lora", "bottleneck"])
def test_experts_join_a_server_that_answers_meanwhile(make, server, tmp_path, kind):
    remote, seen, kept = RemoteLibrary(server), [], {}
    recipe = RECIPE.model_copy(update={"kind": kind})
    for entry in make(recipe=recipe).train(of(*NAMES), quiet):
        assert remote.join(entry)
        seen.append(entry.id)
        listed = {e["id"]: e for e in server.get("/v1/experts").json()["data"]}
        assert set(listed) == set(seen)
        assert listed[entry.id]["state"] == "routed"
        assert chosen(ask(server, entry.id)) <= set(seen)
        assert len(chosen(ask(server, entry.id))) == min(2, len(seen)), "DAM mixes the best two"
        for id in seen:
            answers = ask(server, id, model=id)["answers"]
            files = [
                (tmp_path / root / id / WEIGHTS).read_bytes() for root in ("served", "streams/one")
            ]
            before = kept.setdefault(id, (answers, files))
            assert before == (answers, files), "an expert of before is as it was, bit for bit"
    assert seen == list(NAMES)


def test_every_expert_starts_from_the_one_before(make):
    """A learning rate of nearly nothing leaves what was started from."""
    still = RECIPE.model_copy(update={"learning_rate": 1e-12})
    first, second, third = make(recipe=still).train(of(*NAMES), quiet)
    tensors = [load_file(entry.path / WEIGHTS) for entry in (first, second, third)]
    for name, tensor in tensors[0].items():
        assert torch.equal(tensor, tensors[1][name])
        assert torch.equal(tensor, tensors[2][name])
    assert second.manifest.provenance["start"] == f"trec {first.manifest.files[WEIGHTS]}"


def test_the_first_expert_is_the_one_that_is_trained_alone(make, tmp_path):
    (alone,) = make(tmp_path / "alone").train(of("trec"), quiet)
    first, _ = make().train(of("trec", "sst2"), quiet)
    assert first.manifest.files[WEIGHTS] == alone.manifest.files[WEIGHTS]


def test_a_stream_goes_on_where_it_was(make):
    made = []

    def told(what):
        made.append(what)
        return lambda *_: None

    next(make().train(of("trec", "sst2"), told))
    assert made == ["trec"]
    entries = list(make().train(of("trec", "sst2"), told))
    assert made == ["trec", "sst2"]
    again = list(make().train(of("trec", "sst2"), told))
    assert made == ["trec", "sst2"]
    assert [e.ref for e in again] == [e.ref for e in entries]
    list(make(gates=True).train(of("trec", "sst2"), told))
    assert made[2:] == ["trec: gates", "sst2: gates"]

    other = RECIPE.model_copy(update={"seed": 5})
    list(make(recipe=other).train(of("trec"), told))
    list(make().train(of("trec", "sst2"), told))
    assert made[4:] == ["trec", "trec"], "what the second started from is there again"
    list(make(recipe=other).train(of("trec", "sst2"), told))
    assert made[6:] == ["trec", "sst2"]


def test_gates_are_fitted_where_they_are_asked_for(make, tmp_path):
    (plain,) = make(tmp_path / "plain").train(of("trec"), quiet)
    (gated,) = make(gates=True).train(of("trec"), quiet)
    assert "gate" not in plain.read_artefacts().vectors
    assert "gate" in gated.read_artefacts().vectors
    assert plain.read_artefacts().centroids is not None


def test_an_expert_that_the_server_has_is_not_sent_again(make, server):
    (entry,) = make().train(of("trec"), quiet)
    remote = RemoteLibrary(server)
    assert remote.join(entry)
    assert not remote.join(entry)


def test_an_expert_that_the_server_has_without_gates_gets_them(make, server, tmp_path):
    remote = RemoteLibrary(server)
    (plain,) = make().train(of("trec"), quiet)
    remote.join(plain)
    assert not server.get("/v1/experts/trec").json()["gates"]
    (gated,) = make(gates=True).train(of("trec"), quiet)
    assert remote.join(gated)
    listed = server.get("/v1/experts/trec").json()
    assert (listed["gates"], listed["state"], len(listed["versions"])) == (True, "routed", 2)
    assert not remote.join(gated)
    (again,) = make(tmp_path / "streams" / "two").train(of("trec"), quiet)
    assert not remote.join(again), "gates are not taken away"


def test_the_server_describes_inputs_by_its_own_metric(make, server, tmp_path):
    """A stream's library has no metric, so the folder tells no more than the mean of inputs."""
    backbone, task = tiny_encoder(), Task(TASKS / "trec")
    inputs = [e.input for e in task.train]
    metric = Variation.of({"some": backbone.features([f"text {i}" for i in range(99)])}).metric()
    served = Library.open(tmp_path / "served")
    served.write_calibration(Calibration().model_dump(mode="json"), metric.tensors())
    server.post("/v1/experts/scan")
    (entry,) = make().train([task], quiet)
    assert len(entry.read_artefacts().inputs) == 1
    RemoteLibrary(server).join(entry, [*inputs, " "])
    found = Library.open(tmp_path / "served").get("trec").read_artefacts()
    wanted = mean_and_spread(backbone.features(inputs), metric)
    assert len(found.inputs) == len(wanted) > 1
    assert found.seen == len(inputs)
    assert torch.allclose(found.inputs, wanted, rtol=1e-2, atol=1e-3)


def test_an_expert_of_the_same_name_stays_and_is_told(make, server, tmp_path):
    remote = RemoteLibrary(server)
    (entry,) = make().train(of("trec"), quiet)
    remote.join(entry)
    other = RECIPE.model_copy(update={"seed": 7})
    (changed,) = make(tmp_path / "streams" / "two", other).train(of("trec"), quiet)
    with pytest.raises(RemoteError, match="has an expert 'trec' already"):
        remote.join(changed)
    served = Library.open(tmp_path / "served").get("trec").manifest
    assert served.files[WEIGHTS] == entry.manifest.files[WEIGHTS]


def test_a_bare_adapter_of_the_same_name_is_no_expert_of_ours(make, server, tmp_path):
    (entry,) = make().train(of("trec"), quiet)
    bare = tmp_path / "streams" / "bare"
    bare.mkdir()
    for name in ("adapter_config.json", WEIGHTS):
        shutil.copy(entry.path / name, bare)
    added = server.post("/v1/experts", json={"id": "trec", "source": str(bare)})
    assert (added.status_code, added.json()["provenance"]) == (201, {})
    with pytest.raises(RemoteError, match="has an expert 'trec' already"):
        RemoteLibrary(server).join(entry)


def test_a_name_that_is_taken_is_told_before_anything_is_trained(make, server):
    remote = RemoteLibrary(server)
    remote.require_free(NAMES)
    (entry,) = make().train(of("trec"), quiet)
    remote.join(entry)
    remote.require_free(["sst2"])
    with pytest.raises(RemoteError, match=r"made elsewhere: trec\. Remove them there"):
        remote.require_free(NAMES)


def test_a_folder_that_the_server_may_not_read_says_how_to_allow_it(make, server, tmp_path):
    (entry,) = make(tmp_path / "elsewhere").train(of("trec"), quiet)
    with pytest.raises(RemoteError, match=r"Start it with --adapter-root .*elsewhere") as raised:
        RemoteLibrary(server).join(entry)
    assert raised.value.status == 403
