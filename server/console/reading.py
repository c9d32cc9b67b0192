"""What a response says of its routing, as rows for people to look at.

Pure: JSON of the API in, plain rows out. Knows nothing of pages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from server.console.palette import Mark

STAGES = {
    "queue": "waiting for a batch",
    "instruction": "planning, and writing the instruction",
    "embed": "reading: embeddings and features",
    "select": "scoring experts and deciding",
    "load": "bringing experts to where they compute",
    "forward": "the mixed forward pass",
    "generate": "writing the text",
}
FALLBACKS = {
    "no_fit": "No expert surely fits this: the nearest answers, and may be wrong.",
    "no_expert": "No expert can be chosen; the bare backbone answers.",
}
LEAST_MOVED = 0.001
"""A probability that moved by less is the same."""
LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


def spoken(answer: Mapping[str, Any]) -> str:
    """An answer of `/v1/decisions` in a word; why there is none, where there is none."""
    match answer["type"]:
        case "choice":
            return str(answer["choice"])
        case "predicate":
            return "true" if answer["probability"] >= 0.5 else "false"
        case "score":
            best = max(answer["probabilities"], key=lambda share: share["probability"])
            return f"{best['label']} (score {answer['score']:.2f})"
        case _:
            return str(answer["reason"])


def shares(answer: Mapping[str, Any]) -> list[tuple[str, float]]:
    """Every option of an answer, and how probable it is."""
    if answer["type"] == "predicate":
        share = answer["probability"]
        return [("true", share), ("false", 1 - share)]
    name = "label" if answer["type"] == "score" else "value"
    return [(str(s[name]), s["probability"]) for s in answer.get("probabilities", ())]


def piece_of(choice: Mapping[str, Any]) -> str:
    """What is new of a text, in a chunk of either route."""
    return choice["text"] if "text" in choice else choice["delta"].get("content", "")


def text_of(said: Mapping[str, Any]) -> str:
    """The whole text of an answer of either route."""
    choice = said["choices"][0]
    return choice["text"] if "text" in choice else choice["message"]["content"]


def trace_of(said: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The trace of an answer's first part, or of a stream's last chunk; None where none is told."""
    routing = said.get("routing", {})
    if "questions" in routing:
        return routing["questions"][0]
    told = routing["prompts"][0] if "prompts" in routing else routing
    return told.get("trace")


def differences(said: Mapping[str, Any], first: Mapping[str, Any]) -> list[str]:
    """In what an answer differs from the first setting's, a sentence each."""
    found: list[str] = []
    if word_of(said) != word_of(first):
        found.append("Another answer than the first setting's.")
    elif "answers" in said:
        mine, theirs = (dict(shares(a["answers"][0])) for a in (said, first))
        moved = {o: mine[o] - theirs[o] for o in mine if o in theirs}
        most = max(moved, key=lambda o: abs(moved[o]), default=None)
        if most is not None and abs(moved[most]) >= LEAST_MOVED:
            found.append(f"{most}: {moved[most]:+.1%} against the first setting.")
    ours, others = (weights_of(trace_of(a)) for a in (said, first))
    if list(ours) != list(others):
        found.append("Other experts than the first setting's.")
    elif ours != others:
        found.append("Other weights than the first setting's.")
    return found


def word_of(said: Mapping[str, Any]) -> str:
    """An answer in short, to tell whether two are the same."""
    return spoken(said["answers"][0]) if "answers" in said else text_of(said)


def weights_of(trace: Mapping[str, Any] | None) -> dict[str, float]:
    """The experts of a selection, and their weights to a hundredth."""
    chosen = trace["selection"]["experts"] if trace else []
    return {e["id"]: round(float(e["weight"]), 2) for e in chosen}


@dataclass(frozen=True)
class CandidateRow:
    """One expert that was looked at: its score, its parts, and its weight if it was chosen.

    A trace tells the scores of the best; where it has none at all, the caller named the experts.
    """

    id: str
    score: float | None
    weight: float
    views: Mapping[str, float]
    named: bool = False

    @property
    def chosen(self) -> bool:
        """Whether it answers."""
        return self.weight > 0


def candidates(trace: Mapping[str, Any]) -> list[CandidateRow]:
    """Those that were chosen first, by weight; then the others, by score."""
    weights = {e["id"]: float(e["weight"]) for e in trace["selection"]["experts"]}
    scored = {c["id"]: c for c in trace["candidates"]}
    ids = [*weights, *(id for id in scored if id not in weights)]
    rows = [
        CandidateRow(
            id, scored[id]["score"] if id in scored else None, weights.get(id, 0.0),
            scored[id]["views"] if id in scored else {}, named=not scored,
        )
        for id in ids
    ]  # fmt: skip
    return sorted(rows, key=lambda r: (-r.weight, -(r.score if r.score is not None else -1e9)))


def in_order(trace: Mapping[str, Any]) -> list[str]:
    """The experts of a trace as they matter: by their weight over all tokens, where it is told."""
    weighed = Counter[str]()
    for site in trace.get("tokens") or ():
        weighed.update(dict.fromkeys(site["experts"], 0.0))
        weighed.update({id: sum(told) for id, told in (site.get("weights") or {}).items()})
    ids = dict.fromkeys([*(row.id for row in candidates(trace)), *weighed])
    return sorted(ids, key=lambda id: -weighed[id])


def why_even(trace: Mapping[str, Any]) -> str:
    """Why all tokens are alike, and how they would not be."""
    chosen = trace["selection"]["experts"]
    if len(chosen) == 1:
        return (f"Only {chosen[0]['id']} answers, so there is nothing for tokens to choose. With "
                "the router phatgoose or arrow all experts compete for each token.")  # fmt: skip
    return ("These experts act as one merged expert: every token at every site is mixed alike. Ask "
            "in mode token to have each token choose.")  # fmt: skip


def ended(reason: str) -> str:
    """Why a text ends where it does."""
    if reason == "length":
        return "It stopped at the most tokens that it might write."
    return "The text is complete."


def remarks(trace: Mapping[str, Any]) -> list[str]:
    """What a person should know of a trace beside its selection, a sentence each."""
    said: list[str] = []
    if code := trace["fallback"]:
        said.append(FALLBACKS.get(code, f"Fallback: {code}."))
    if trace["narrowed"]:
        said.append("The preset wants all experts, and got fewer.")
    said += [f"{id} was left out: {why}" for id, why in trace["dropped"].items()]
    said += [f"{id} could not be loaded; the next candidate took its place."
             for id in trace["replaced"]]  # fmt: skip
    said += [f"{cut['part']} was cut from {cut['tokens_sent']} to {cut['tokens_kept']} tokens."
             for cut in trace["truncated"]]  # fmt: skip
    said += [note for name in ("writer_note", "calibration_note") if (note := trace[name])]
    return said


@dataclass(frozen=True)
class StageRow:
    """A stretch of time: in milliseconds, and as parts of the whole."""

    name: str
    says: str
    milliseconds: float
    begins: float
    share: float
    offset: float


def waterfall(stages: Sequence[Mapping[str, Any]]) -> list[StageRow]:
    """Stages in the order in which they began."""
    whole = max((s["begins"] + s["milliseconds"] for s in stages), default=0.0) or 1.0
    return [
        StageRow(s["stage"], STAGES.get(s["stage"], ""), s["milliseconds"], s["begins"],
                 s["milliseconds"] / whole, s["begins"] / whole)
        for s in sorted(stages, key=lambda s: s["begins"])
    ]  # fmt: skip


@dataclass(frozen=True)
class HeatRow:
    """A site of the heat map.

    Attributes:
        layer: its number, -1 of a site outside all layers. stack: what the layers are of, such as
            "encoder". part: the rest of its name. first: place of the first token that it sees.
        weights_ET: of each expert of the map, at each of those tokens.
    """

    site: str
    stack: str
    layer: int
    part: str
    first: int
    weights_ET: list[list[float]]


@dataclass(frozen=True)
class HeatMap:
    """Which expert weighed how much, for every token at every site.

    Attributes:
        tokens: as they read. written: how many of them, at the end, are the answer's. experts: with
            their marks, in the order of weights. even: whether all tokens are mixed alike, so that
            there is one row.
    """

    tokens: list[str]
    written: int
    experts: list[dict[str, str]]
    rows: list[HeatRow]
    even: bool

    def as_json(self) -> dict[str, Any]:
        """For the page's component."""
        return asdict(self)


def heat_map(trace: Mapping[str, Any], marks: Mapping[str, Mark]) -> HeatMap | None:
    """The heat map of a trace of all tokens; None where no expert answered.

    Experts merged for a whole sample weigh the same at every token: they have one row for all.
    """
    chosen = trace["selection"]["experts"]
    spelled: list[str] = trace.get("spelled") or []
    sites = trace.get("tokens") or []
    if not chosen or not spelled:
        return None
    ids = [id for id in marks if any(id in s["weights"] for s in sites)] if sites else [
        e["id"] for e in chosen
    ]  # fmt: skip
    rows = list(_rows(sites, ids)) if sites else [_even(trace["selection"], len(spelled))]
    shown = [{"id": id, **asdict(marks[id])} for id in ids]
    return HeatMap(spelled, trace.get("written") or 0, shown, rows, not sites)


def _rows(sites: Sequence[Mapping[str, Any]], ids: Sequence[str]) -> Iterator[HeatRow]:
    for site in sites:
        weights = site["weights"]
        count = len(next(iter(weights.values()), ()))
        columns = [list(weights.get(id, [0.0] * count)) for id in ids]
        yield HeatRow(site["site"], *placed(site["site"]), site["first"], columns)


def _even(selection: Mapping[str, Any], count: int) -> HeatRow:
    columns = [[round(float(e["weight"]), 4)] * count for e in selection["experts"]]
    return HeatRow("every site", "", -1, "every site", 0, columns)


def placed(site: str) -> tuple[str, int, str]:
    """What stack of layers a site is in, the layer's number, and the rest of its name."""
    found = LAYER.search(site)
    if found is None:
        return "", -1, site
    stack = site[: found.start()].split(".")[0]
    return stack, int(found[1]), site[found.end() :] or site
