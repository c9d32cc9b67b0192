"""Regular expressions of strangers: those that could run for ever are refused before they run."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from experts.backbones import TextEncoder
from experts.errors import UnsupportedExpert
from experts.kinds import KINDS, Adapter
from experts.kinds.patterns import MAX_CHARACTERS, MAX_WAYS, require_quick
from experts.weights import ExpertWeights

NAMES = [f"encoder.layer.{i}.attention.output.dense" for i in range(12)]

ENDLESS = [
    "([a-z0-9.]+)*!",
    "(a|a)*!",
    "(?:.*)*!",
    "((a?){30}){30}!",
    "(.|.)" * 30 + "!",
    ".*" * 20 + "!",
    ".?" * 60 + "!",
    "(?=(.+)+!)x",
    "((){60000}){60000}",
    "a|(.+)+!",
]


@pytest.mark.parametrize("pattern", ENDLESS)
def test_patterns_that_could_run_for_ever_are_refused(pattern: str) -> None:
    with pytest.raises(UnsupportedExpert, match="alpha_pattern could take too long"):
        require_quick("alpha_pattern", ["query", pattern], NAMES)


@pytest.mark.parametrize("pattern", ENDLESS)
@pytest.mark.parametrize("field", ["alpha_pattern", "target_modules", "exclude_modules", "layers"])
def test_no_field_of_a_config_runs_them(
    pattern: str,
    field: str,
    make_expert: Callable[..., ExpertWeights],
    encoder64: TextEncoder,
) -> None:
    sound = KINDS["lora"].write(make_expert("lora", "sound"))
    changed = {
        "alpha_pattern": {"alpha_pattern": {pattern: 4}},
        "target_modules": {"target_modules": pattern},
        "exclude_modules": {"exclude_modules": pattern},
        "layers": {"layers_to_transform": [0], "layers_pattern": ["layer", pattern]},
    }[field]
    started = time.perf_counter()
    with pytest.raises(UnsupportedExpert, match="too long"):
        KINDS["lora"].fit(Adapter({**sound.config, **changed}, sound.tensors), encoder64.sites, "e")
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "pattern",
    [
        "encoder.layer.0.attention.self.query",
        r".*\.(query|key|value)",
        r"encoder\.layer\.(0|1|2)\..*",
        r"^(?!.*pooler).*dense$",
        r".*layer\.(\d+)\..*\.(query|key|value|dense)",
        r"(?:.*?(?:self|output).*?(?:query|key|dense).*?)|(?:\bencoder\.layer\.[\d]{1,}\.output)",
        r"(?i)(encoder\.)?layer\.\d{1,2}\.(attention\.self\.(query|value)|output\.dense)",
    ],
)
def test_patterns_that_people_write_are_served(pattern: str) -> None:
    require_quick("target_modules", [pattern], NAMES)


def test_a_name_for_every_site_of_a_large_backbone_is_served() -> None:
    names = [f"encoder.layer.{i}.attention.output.dense" for i in range(800)]
    require_quick("alpha_pattern", names, names)
    with pytest.raises(UnsupportedExpert, match="characters"):
        require_quick("alpha_pattern", ["a" * (MAX_CHARACTERS + 1)], names)


def test_many_slow_patterns_are_as_bad_as_one() -> None:
    each = r".*\..*\..*"
    require_quick("alpha_pattern", [each], NAMES)
    with pytest.raises(UnsupportedExpert, match="too long"):
        require_quick("alpha_pattern", [each] * 20, NAMES)


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "no regular expression"),
        ("a)|(b", "no regular expression"),
        ("(" * 5000 + ")" * 5000, "no regular expression"),
        ("a{99999999999}", "no regular expression"),
        (r"(a)\1", "groupref"),
        (r"(a)?(?(1)b|c)", "groupref_exists"),
    ],
)
def test_what_is_no_pattern_or_looks_back_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(UnsupportedExpert, match=reason):
        require_quick("target_modules", [pattern], NAMES)


PARTS = st.sampled_from(["a", ".", "[ab]", "(?:a|ab)", "(?:a|.|b)", "a?", r"\b", ""])
QUANTIFIERS = st.sampled_from(["", "*", "+?", "?", "{2}", "{1,3}", "{,2}"])


@given(st.recursive(
    PARTS, lambda inner: st.tuples(st.lists(inner, min_size=1, max_size=3), QUANTIFIERS).map(
        lambda t: f"(?:{'|'.join(t[0])}){t[1]}"
    ) | st.lists(inner, max_size=4).map("".join), max_leaves=8))  # fmt: skip
def test_whatever_is_not_refused_is_quick(pattern: str) -> None:
    name = "a" * 40
    try:
        require_quick("alpha_pattern", [pattern], [name])
    except UnsupportedExpert:
        return
    started = time.perf_counter()
    re.match(rf"(.*\.)?({pattern}!)$", name)
    assert time.perf_counter() - started < MAX_WAYS * 1e-6
