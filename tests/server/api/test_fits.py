"""Labelled examples sent along with an expert: gates fitted while the server answers."""

import asyncio
import time

import httpx
import pytest

from experts.library import Library

pytestmark = pytest.mark.anyio
LABELS = [{"value": v} for v in ("launch", "soaring", "landing")]
SAID = {
    "launch": ("The winch pulls.", "Off the ground.", "The rope is tight.", "Ready to go up."),
    "soaring": ("Rising air.", "Circling in lift.", "Two thousand metres.", "Under the cloud."),
    "landing": ("Wheels down.", "On final.", "The field is near.", "Brakes open, sinking."),
}
EXAMPLES = [{"input": text, "label": label} for label, texts in SAID.items() for text in texts]


@pytest.fixture
def described(bare_adapter):
    """A bare adapter with a sentence, its labels, and labelled examples."""
    return {
        "source": str(bare_adapter(rename=False)), "id": "gliding", "choices": LABELS,
        "instructions": ["Say which part of a flight this is about."], "examples": EXAMPLES,
    }  # fmt: skip


async def ended(client, id="gliding", patience=60.0):
    """The expert once its fit has ended."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        expert = (await client.get(f"/v1/experts/{id}")).json()
        if expert["fit"] is None or expert["fit"]["state"] in ("done", "failed"):
            return expert
        await asyncio.sleep(0.02)
    raise AssertionError(f"the fit has not ended: {expert['fit']}")


async def embedding(client, model, **routing):
    body = {"model": model, "input": "Clear skies.", "routing": routing}
    answered = await client.post("/v1/embeddings", json=body)
    assert answered.status_code == 200, answered.text
    return answered.json()


async def token_mode(client):
    """Whether the gate router can weigh the expert at each token, beside one that has gates."""
    asked = {"experts": {"gliding": 0.5, "mood": 0.5}, "mode": "token"}
    routing = (await embedding(client, "auto", **asked))["routing"]
    return {e["id"]: not e["fixed"] for e in routing["selection"]["experts"]}


async def test_labelled_examples_make_gates_in_the_background(client, described, library):
    added = await client.post("/v1/experts", json=described)
    assert (added.status_code, added.json()["state"]) == (201, "routed"), added.text
    assert added.json()["fit"]["state"] in ("queued", "running")
    first = added.json()["version"]
    before = (await embedding(client, f"gliding@{first}"))["data"]
    assert await token_mode(client) == {"gliding": False, "mood": True}

    fitted = await ended(client)
    assert fitted["fit"] == {"state": "done", "done": 100, "total": 100, "message": ""}
    assert fitted["versions"] == [first, first + 1]
    assert await token_mode(client) == {"gliding": True, "mood": True}
    after = (await embedding(client, "gliding"))["data"]
    assert after[0]["embedding"] == pytest.approx(before[0]["embedding"], abs=1e-5)

    entry = Library.open(library).get("gliding")
    gates = entry.read_artefacts().vectors["gate"]
    assert any(gate.abs().max() > 0 for gate in gates.values()), "gates of zeros prefer nothing"
    stored = b"".join(p.read_bytes() for p in (library / "gliding").iterdir())
    assert b"Wheels down" not in stored  # an example is not kept
    assert 'sailplane_fits_total{state="done"} 1.0' in (await client.get("/metrics")).text


async def test_what_was_there_before_the_fit_still_answers(client, described):
    added = (await client.post("/v1/experts", json=described)).json()
    first = await embedding(client, "gliding")
    pinned = first["routing"]["selection"]
    await ended(client)
    again = await embedding(client, "auto", selection=pinned)
    assert again["data"][0]["embedding"] == pytest.approx(first["data"][0]["embedding"], abs=1e-5)
    assert pinned["experts"][0]["version"] == added["version"]


async def test_no_request_fails_while_an_expert_is_fitted(client, described):
    assert (await client.post("/v1/experts", json=described)).status_code == 201
    codes, fit = [], asyncio.create_task(ended(client))
    while not fit.done():
        for model in ("auto", "gliding", "mood"):
            asked = {"model": model, "input": f"Clear skies, {len(codes)}."}
            codes.append((await client.post("/v1/embeddings", json=asked)).status_code)
        await asyncio.sleep(0.05)
    assert (await fit)["fit"]["state"] == "done"
    assert len(codes) > 3
    assert set(codes) == {200}


async def test_a_removal_stops_the_fit(client, app, described):
    fits = app.state.context.fits
    assert (await client.post("/v1/experts", json=described)).status_code == 201
    assert fits.of("gliding") is not None
    assert (await client.delete("/v1/experts/gliding")).status_code == 204
    assert fits.of("gliding") is None
    await asyncio.to_thread(fits.close, 10)
    assert (await client.get("/v1/experts/gliding")).status_code == 404
    metrics = (await client.get("/metrics")).text
    for state in ("done", "failed"):
        assert f'sailplane_fits_total{{state="{state}"}} 0.0' in metrics, "it was stopped: no end"


async def test_a_removal_that_is_refused_leaves_the_fit(client, described):
    assert (await client.post("/v1/experts", json=described)).status_code == 201
    assert (await client.put("/v1/aliases/prod", json={"expert": "gliding"})).status_code == 200
    assert (await client.delete("/v1/experts/gliding")).status_code == 409
    assert (await ended(client))["fit"]["state"] == "done"
    assert (await client.delete("/v1/experts/gliding")).status_code == 409
    assert (await client.get("/v1/experts/gliding")).json()["fit"]["state"] == "done"


async def test_a_replacement_stops_the_fit_and_may_ask_for_its_own(client, described):
    first = (await client.post("/v1/experts", json=described)).json()["version"]
    plain = {k: v for k, v in described.items() if k not in ("id", "examples")}
    replaced = (await client.put("/v1/experts/gliding", json=plain)).json()
    assert (replaced["version"], replaced["fit"]) == (first + 1, None)
    again = (await client.put("/v1/experts/gliding", json={**plain, "examples": EXAMPLES})).json()
    assert again["fit"]["state"] in ("queued", "running")
    fitted = await ended(client)
    assert (fitted["fit"]["state"], fitted["version"]) == ("done", first + 3)


async def test_a_replacement_by_another_process_wins(client, described, library, service):
    await client.post("/v1/experts", json=described)
    backbone, source = service.engine.backbone, described["source"]
    other = Library.open(library, fingerprint=backbone.fingerprint, backbone_id=backbone.id)
    other.add(source, "gliding", sites=backbone.sites, roots=(source,), replace=True)
    failed = (await ended(client))["fit"]
    assert failed["state"] == "failed"
    assert "replaced" in failed["message"]
    assert Library.open(library).get("gliding").manifest.version == 2


async def test_a_server_that_stops_leaves_the_expert_as_described(app, described, library):
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        added = (await client.post("/v1/experts", json=described)).json()
        fits = app.state.context.fits
    assert fits.of("gliding") is None
    entry = Library.open(library).get("gliding")
    assert entry.manifest.version == added["version"]
    assert "gate" not in entry.read_artefacts().vectors


@pytest.mark.parametrize(
    ("examples", "param"),
    [
        ([{"input": "Rising air.", "label": "soaring"}, {"input": "x", "label": "hovering"}],
         "examples[1].label"),
        ([{"input": "Rising air."}], "examples[0].label"),
        ([{"input": "", "label": "soaring"}], "examples[0].input"),
        ([{"input": "x", "label": "soaring", "weight": 2}], "examples[0].weight"),
        ([3], "examples[0]"),
        (["text"] * 257, "examples"),
        ([EXAMPLES[0]] * 4097, "examples"),
    ],
)  # fmt: skip
async def test_examples_that_cannot_be_used_are_refused(
    client, described, library, examples, param
):
    body = {**described, "examples": examples}
    refused = await client.post("/v1/experts", json=body)
    assert refused.status_code in (413, 422), refused.text
    if refused.status_code == 422:
        assert refused.json()["error"]["param"] == param
    assert not (library / "gliding").exists()


async def test_labels_need_a_label_set(client, described):
    body = {**described, "choices": []}
    refused = await client.post("/v1/experts", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "examples[0].label")
    assert "choices" in refused.json()["error"]["message"]


async def test_more_fits_than_may_wait_are_refused(client, described):
    codes = []
    for i in range(20):
        answered = await client.post("/v1/experts", json={**described, "id": f"gliding-{i}"})
        codes.append(answered.status_code)
        if answered.status_code != 201:
            break
    assert codes[-1] == 503
    assert (await client.get(f"/v1/experts/gliding-{len(codes) - 1}")).status_code == 404
