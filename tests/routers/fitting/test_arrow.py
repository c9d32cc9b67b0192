"""Arrow prototypes against a full singular value decomposition."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional as F

from experts.artefacts import Artefacts
from experts.directions import WEAKEST, direction_of
from experts.entries import CONFIG, MANIFEST, WEIGHTS, Entry, read_manifest
from experts.kinds import Site
from experts.kinds.names import PREFIX
from experts.loader import load_expert
from experts.manifest import BackboneRef, Manifest
from experts.weights import ExpertWeights
from experts.writing import seal, write_expert
from routers.fitting.arrow import arrow_coefficients, top_right_singular_vector

DEMO = Path(__file__).parents[3] / "library" / "minilm"


def lora(A_RD, B_RO):
    return ExpertWeights("e", "lora", ("lora",), {"site": {"A": A_RD, "B": B_RO}})


def factors(rank: int, width: int, out: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(rank, width, generator=generator, dtype=torch.float64),
        torch.randn(rank, out, generator=generator, dtype=torch.float64),
    )


@given(st.integers(1, 9), st.integers(1, 12), st.integers(1, 12), st.integers(0, 99))
def test_it_is_the_exact_top_right_singular_vector(rank, width, out, seed):
    """Ranks above the widths included."""
    A_RD, B_RO = factors(rank, width, out, seed)
    v_D = top_right_singular_vector(A_RD, B_RO)
    _, s, Vh = torch.linalg.svd(B_RO.T @ A_RD)
    torch.testing.assert_close(v_D.norm(), torch.tensor(1.0).double())
    torch.testing.assert_close((B_RO.T @ (A_RD @ v_D)).norm(), s[0])
    if len(s) < 2 or s[1] < 0.98 * s[0]:  # else the direction is hardly defined
        torch.testing.assert_close((v_D @ Vh[0]).abs(), torch.tensor(1.0).double())


def test_no_other_direction_is_amplified_more():
    A_RD, B_RO = factors(4, 16, 10, 0)
    v_D = top_right_singular_vector(A_RD, B_RO)
    other_MD = torch.nn.functional.normalize(torch.randn(500, 16).double(), dim=-1)
    most = (other_MD @ A_RD.T @ B_RO).norm(dim=1).max()
    assert (v_D @ A_RD.T @ B_RO).norm() >= most


@given(st.integers(1, 6), st.integers(6, 16), st.integers(1, 12), st.integers(0, 99))
def test_the_coefficients_stand_for_it(rank, width, out, seed):
    A_RD, B_RO = factors(rank, width, out, seed)
    gains = torch.linalg.svdvals(A_RD)
    assume(gains[-1] > WEAKEST * gains[0])
    _, s, Vh = torch.linalg.svd(B_RO.T @ A_RD)
    assume(len(s) < 2 or s[1] < 0.98 * s[0])
    c_R = arrow_coefficients(lora(A_RD, B_RO))["site"]
    assert c_R.shape == (rank,)
    v_D = direction_of(c_R, A_RD)
    torch.testing.assert_close(v_D * (v_D @ Vh[0]).sign(), Vh[0], atol=1e-9, rtol=0)


@pytest.mark.parametrize("zero", ["A", "B"])
def test_an_update_of_nothing_has_no_direction(zero):
    A_RD, B_RO = factors(2, 6, 5, 0)
    (A_RD if zero == "A" else B_RO).zero_()
    assert not top_right_singular_vector(A_RD, B_RO).any()
    assert torch.equal(arrow_coefficients(lora(A_RD, B_RO))["site"], torch.zeros(2).double())


def test_factors_that_lack_rank_have_one_all_the_same():
    """Rows of A that are one row, and huge parts of B that cancel."""
    A_RD, B_RO = factors(3, 16, 10, 0)
    A_RD[1] = A_RD[0]
    B_RO[0] *= 1e6
    B_RO[1] -= B_RO[0]
    c_R = arrow_coefficients(lora(A_RD, B_RO))["site"]
    exact_D = torch.linalg.svd(B_RO.T @ A_RD).Vh[0]
    assert_along(direction_of(c_R.half(), A_RD.half()), exact_D)


@pytest.mark.parametrize("config", [{"lora_alpha": 64}, {"lora_alpha": 1, "use_rslora": True}])
def test_an_expert_that_is_read_has_it_whatever_its_scale(tmp_path, encoder64, make_expert, config):
    made = make_expert("lora", "e")
    reference = BackboneRef(id=encoder64.id, fingerprint=encoder64.fingerprint)
    manifest = Manifest(id="e", title="e", kind="lora", backbone=reference)
    artefacts = Artefacts("", vectors={"arrow": arrow_coefficients(made)})
    folder = write_expert(tmp_path, manifest, made, artefacts).path
    plain = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(plain | config))
    entry = Entry(folder, seal(folder, manifest))
    loaded = load_expert(entry, encoder64.sites, dtype=torch.float64)
    assert loaded.vectors["arrow"].keys() == made.sites.keys()
    assert_top_directions(loaded)


def test_the_demo_library_has_them():
    """In half precision, at every site of every expert; sites are read off the files."""
    torch.set_num_threads(1)  # the products are tiny
    folders = sorted(path.parent for path in DEMO.glob(f"*/{MANIFEST}"))
    assert folders
    for folder in folders:
        stored = safetensors.torch.load_file(folder / WEIGHTS)
        shapes = {name.removeprefix(PREFIX).removesuffix(".lora_A.weight"): A_RD.shape[1]
                  for name, A_RD in stored.items() if ".lora_A." in name}  # fmt: skip
        sites = {
            s: Site(s, D, len(stored[f"{PREFIX}{s}.lora_B.weight"])) for s, D in shapes.items()
        }
        loaded = load_expert(Entry(folder, read_manifest(folder)), sites, dtype=torch.float32)
        assert loaded.vectors["arrow"].keys() == loaded.sites.keys()
        assert_top_directions(loaded)


def assert_top_directions(expert):
    for site, v_D in expert.vectors["arrow"].items():
        A_RD, B_RO = expert.sites[site]["A"].double(), expert.sites[site]["B"].double()
        # Through their Gram matrices, which no code here does: v is c A of the best c.
        root_RR = torch.linalg.cholesky(A_RD @ A_RD.T)
        best_R = torch.linalg.eigh(root_RR.T @ (B_RO @ B_RO.T) @ root_RR).eigenvectors[:, -1]
        exact_D = torch.linalg.solve(root_RR.T, best_R) @ A_RD
        assert_along(v_D, exact_D)


def assert_along(v_D, exact_D):
    """A unit vector in the direction of the other, or against it, but for half precision."""
    assert float(v_D.double().norm()) == pytest.approx(1, abs=1e-3)
    assert float(F.cosine_similarity(v_D.double(), exact_D, dim=0).abs()) > 1 - 1e-5


def test_only_kinds_with_a_linear_update_have_one(make_expert):
    lora = make_expert("lora", "a")
    assert arrow_coefficients(lora).keys() == lora.sites.keys()
    assert arrow_coefficients(make_expert("bottleneck", "b")) == {}
