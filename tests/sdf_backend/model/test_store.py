"""Model files: complete, consistent with their cards, and refused otherwise."""

import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mutations import SEED, mutate
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sdf_backend.errors import InputError
from sdf_backend.model.model_cache import ModelCache
from sdf_backend.model.store import (
    FORMAT,
    MODELS_VARIABLE,
    STARTER_MODELS,
    Model,
    ModelStore,
    load_model,
    read_card,
    save_model,
)
from sdf_backend.progress import silent


@pytest.fixture(autouse=True)
def without_extra_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MODELS_VARIABLE, raising=False)


def test_a_model_comes_back_with_its_card_its_weights_and_its_codes(spheres: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "spheres.safetensors", spheres)
    loaded = load_model(tmp_path / "spheres.safetensors")
    assert loaded.card == spheres.card == read_card(tmp_path / "spheres.safetensors")
    points = torch.rand(12, 100, 3, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        assert torch.equal(loaded.decoder(spheres.codes, points), spheres.decoder(spheres.codes, points))
    assert torch.equal(loaded.codes, spheres.codes.half().float())
    assert not loaded.decoder.training
    assert not any(parameter.requires_grad for parameter in loaded.decoder.parameters())


def test_the_file_is_small_and_readable_by_other_users(spheres: Model, tmp_path: Path) -> None:
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    assert path.stat().st_mode & 0o777 == 0o644
    assert path.stat().st_size < 100_000
    assert [file.name for file in tmp_path.iterdir()] == ["spheres.safetensors"]


def test_mean_and_covariance_are_those_of_the_codes_and_the_covariance_has_an_inverse(spheres: Model) -> None:
    codes = spheres.codes.double().numpy()
    assert np.allclose(spheres.mean.numpy(), codes.mean(0), atol=1e-6)
    exact = np.cov(codes.T)
    floor = 1e-3 * np.trace(exact) / len(exact)
    assert np.allclose(spheres.covariance.numpy(), exact + floor * np.eye(len(exact)), atol=1e-6)
    for codes in (torch.zeros(1, 3), torch.ones(5, 3), torch.tensor([[1.0, 0, 0], [2, 0, 0]])):
        torch.linalg.cholesky(replace(spheres, codes=codes).covariance)


def test_codes_are_the_unlikelier_the_more_standard_deviations_they_lie_from_the_mean(spheres: Model) -> None:
    assert spheres.unlikeliness(spheres.mean) == pytest.approx(0, abs=1e-9)
    for component in spheres.principal_components:  # rows of one standard deviation each
        assert spheres.unlikeliness(spheres.mean + 2 * component) == pytest.approx(4, rel=1e-3)


def test_principal_components_are_the_ordered_eigenvectors_of_the_covariance(spheres: Model) -> None:
    stretched = replace(spheres, codes=spheres.codes * torch.tensor([1.0, 3.0, 0.3]))
    directions = stretched.principal_components.double().numpy()
    covariance = stretched.covariance.double().numpy()
    variances = np.diag(directions @ directions.T)
    np.testing.assert_allclose(directions @ directions.T, np.diag(variances), atol=1e-6)
    np.testing.assert_allclose(variances, np.linalg.eigvalsh(covariance)[::-1], rtol=1e-4)
    np.testing.assert_allclose(directions.T @ directions, covariance, atol=1e-6)
    for direction in directions:
        assert direction[np.abs(direction).argmax()] > 0


def test_principal_components_of_codes_along_the_axes_are_those_axes(spheres: Model) -> None:
    """Codes at plus and minus a, b and c on the axes: their variances are 2 a^2 / 5 and so on, and the floor's."""
    reach = np.array([0.5, 2.0, 1.0])
    codes = torch.tensor(np.concatenate([np.diag(reach), -np.diag(reach)]), dtype=torch.float32)
    variances = 2 * reach**2 / 5
    deviations = np.sqrt(variances + 1e-3 * variances.mean())
    expected = np.diag(deviations)[[1, 2, 0]]
    np.testing.assert_allclose(replace(spheres, codes=codes).principal_components.numpy(), expected, atol=1e-5)


def test_principal_components_are_computed_once(spheres: Model) -> None:
    assert spheres.principal_components is spheres.principal_components


def test_a_file_that_holds_the_mean_and_the_covariance_as_version_0_1_wrote_them_still_loads(
    spheres: Model, tmp_path: Path
) -> None:
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    assert {name for name in load_file(path) if not name.startswith("decoder.")} == {"codes"}
    rewritten(path, None, {"mean": spheres.mean, "covariance": spheres.covariance})
    loaded = load_model(path)
    assert torch.equal(loaded.codes, spheres.codes.half().float()) and loaded.card == spheres.card


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut_in_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def cut_in_the_weights(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def garbage(path: Path) -> None:
    path.write_bytes(np.random.default_rng(0).bytes(5_000))


def another_format(path: Path) -> None:
    path.write_bytes(b"ply\nformat ascii 1.0\nend_header\n")


def header_of_petabytes(path: Path) -> None:
    path.write_bytes((1 << 50).to_bytes(8, "little") + path.read_bytes()[8:])


@pytest.mark.parametrize(
    "damage", [empty, cut_in_the_header, cut_in_the_weights, garbage, another_format, header_of_petabytes]
)
def test_a_damaged_file_is_refused_with_its_name(
    spheres: Model, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    damage(path)
    for read in (read_card, load_model):
        with pytest.raises(InputError, match=r"spheres\.safetensors is damaged or not a model: \S"):
            read(path)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"format": "sdf-shapes-model-99", "card": "{}"}])
def test_a_foreign_safetensors_file_is_refused(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3, 3)}, path, metadata)
    with pytest.raises(InputError, match=r"foreign\.safetensors is not a model of this project \(format"):
        load_model(path)


@pytest.mark.parametrize("card", ["", "[]", "null", "{}", '{"name": "x"}', '"text"'])
def test_an_unreadable_card_is_refused(tmp_path: Path, card: str) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"weight": torch.zeros(3)}, path, {"format": FORMAT, "card": card})
    with pytest.raises(InputError, match="has an unreadable card"):
        read_card(path)


def rewritten(path: Path, card: dict | None = None, tensors: dict[str, torch.Tensor | None] | None = None) -> None:
    """Change fields of the card and tensors of a model's file; None takes a tensor away."""
    with safe_open(path, framework="np") as file:
        metadata = file.metadata()
    content = {name: value for name, value in {**load_file(path), **(tensors or {})}.items() if value is not None}
    changed = {**json.loads(metadata["card"]), **(card or {})}
    save_file(content, path, {**metadata, "card": json.dumps(changed)})


@pytest.mark.parametrize(
    "card",
    [
        {"decoder": {"code_length": 4, "width": 48, "layers": 4, "skip_at": 2, "dropout": 0.0, "mirror_axis": None}},
        {"decoder": {"code_length": 3, "width": 64, "layers": 4, "skip_at": 2, "dropout": 0.0, "mirror_axis": None}},
        {"decoder": {"code_length": 3, "width": 48, "layers": 5, "skip_at": 2, "dropout": 0.0, "mirror_axis": None}},
        {"decoder": {"code_length": 3, "width": 48, "layers": 4, "skip_at": 3, "dropout": 0.0, "mirror_axis": None}},
        {"decoder": {"code_length": 3, "width": -48}},
        {"decoder": {"code_length": "3"}},
        {"decoder": {}},
        {"decoder": []},
        {"decoder": None},
        {"shapes": []},
        {"shapes": ["one"]},
        {"shapes": 12},
        {"clamp": 0},
        {"reach": 0},
        {"clamp": "wide"},
        {"up": "sideways"},
        {"front": "+y"},
        {"sources": [{"licence": "CC0-1.0"}]},
        {"sources": 5},
    ],
    ids=str,
)
def test_a_tampered_card_is_refused(spheres: Model, tmp_path: Path, card: dict) -> None:
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    rewritten(path, card)
    with pytest.raises(
        InputError, match=r"spheres\.safetensors (does not match|has weights or codes|has an unreadable)"
    ):
        load_model(path)


@pytest.mark.parametrize(
    "tensors",
    [
        {"codes": None},
        {"codes": torch.zeros(12, 4)},
        {"codes": torch.zeros(11, 3)},
        {"codes": torch.zeros(12)},
        {"codes": torch.full((12, 3), torch.nan)},
        {"decoder.last.bias": None},
        {"decoder.last.bias": torch.tensor([torch.inf])},
        {"decoder.last.weight": torch.zeros(1, 47)},
        {"decoder.extra": torch.zeros(1)},
    ],
    ids=lambda tensors: next(
        f"{name} {None if value is None else value.tolist()}"[:40] for name, value in tensors.items()
    ),
)
def test_tensors_that_do_not_fit_are_refused(spheres: Model, tmp_path: Path, tensors: dict) -> None:
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    rewritten(path, None, tensors)
    with pytest.raises(InputError, match=r"spheres\.safetensors (does not match|has weights or codes)"):
        load_model(path)


def test_a_model_without_shapes_is_refused(spheres: Model, tmp_path: Path) -> None:
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    rewritten(path, {"shapes": []}, {"codes": torch.zeros(0, 3)})
    with pytest.raises(InputError, match="shapes is \\[\\], not a list of 1"):
        load_model(path)


def test_a_rewritten_but_valid_model_still_loads(spheres: Model, tmp_path: Path) -> None:
    """Otherwise the refusals above might be due to the rewriting."""
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    rewritten(path, {"accuracy": {"known": 1.0}}, {"codes": torch.zeros(12, 3)})
    assert load_model(path).card == replace(spheres.card, accuracy={"known": 1.0})


def test_a_card_of_a_newer_version_is_read_unless_its_decoder_is_another(spheres: Model, tmp_path: Path) -> None:
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    rewritten(path, {"colour": "blue"})
    assert load_model(path).card == spheres.card
    rewritten(path, {"decoder": {**spheres.card.decoder, "planes": 3, "depth": 9}})
    with pytest.raises(InputError, match=r"has unknown settings \(depth, planes\); update this program"):
        load_model(path)


def a_folder(path: Path) -> str:
    path.mkdir()
    return "is a folder"


def a_pipe(path: Path) -> str:
    os.mkfifo(path)
    return "is a pipe, a socket or a device"


def a_link_to_zeros(path: Path) -> str:
    path.symlink_to("/dev/zero")
    return "is a pipe, a socket or a device"


def a_link_to_nothing(path: Path) -> str:
    path.symlink_to(path.parent / "nothing")
    return "does not exist"


def a_huge_file(path: Path) -> str:
    path.touch()
    os.truncate(path, 100 << 30)
    return "has 107374182400 bytes; at most 1073741824 are read"


@pytest.mark.parametrize("make", [a_folder, a_pipe, a_link_to_zeros, a_link_to_nothing, a_huge_file])
def test_what_is_no_model_file_is_refused_without_opening_it(
    spheres: Model, tmp_path: Path, make: Callable[[Path], str]
) -> None:
    said = make(tmp_path / "odd.safetensors")
    save_model(tmp_path / "spheres.safetensors", spheres)
    cards = ModelStore(tmp_path).cards()
    assert said in str(cards[tmp_path / "odd.safetensors"])
    assert cards[tmp_path / "spheres.safetensors"] == spheres.card
    with pytest.raises(InputError, match=said):
        ModelCache(ModelStore(tmp_path), torch.device("cpu"), 1 << 30).load("odd", silent)


def test_a_network_that_the_file_does_not_hold_is_refused_before_it_is_made(spheres: Model, tmp_path: Path) -> None:
    """In memory this one would take 64 GB."""
    path = tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    rewritten(path, {"decoder": {**spheres.card.decoder, "width": 16384, "layers": 60}})
    with pytest.raises(InputError, match="does not match its own card"):
        load_model(path)


def test_a_mutated_model_is_read_or_refused_in_one_sentence(spheres: Model, tmp_path: Path) -> None:
    print(f"seed {SEED}")
    draw, path = random.Random(SEED), tmp_path / "spheres.safetensors"
    save_model(path, spheres)
    content, refused, started = path.read_bytes(), 0, time.monotonic()
    header = 8 + int.from_bytes(content[:8], "little")
    for number in range(500):
        # Half of the damage is to the header and the card in it, where a change matters most.
        changed = mutate(content[:header], draw) + content[header:] if number % 2 else mutate(content, draw)
        path.write_bytes(changed)
        try:
            model = load_model(path)
        except InputError as error:
            assert "\n" not in str(error) and "Traceback" not in str(error)
            refused += 1
        else:
            points = torch.zeros(len(model.codes), 1, 3)
            assert torch.isfinite(model.decoder(model.codes, points)).all()
    assert 100 < refused < 500
    assert time.monotonic() - started < 60


def test_an_unknown_name_lists_the_known_ones(spheres: Model, tmp_path: Path) -> None:
    for name in ("chairs", "beds"):
        save_model(tmp_path / f"{name}.safetensors", spheres)
    store = ModelStore(tmp_path)
    with pytest.raises(InputError) as caught:
        store.find("boats")
    known = sorted({"beds", "chairs", *(path.stem for path in STARTER_MODELS.glob("*.safetensors"))})
    assert str(caught.value) == f"unknown model 'boats'; known models: {', '.join(known)}"


def test_the_environment_variable_adds_a_folder(
    spheres: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path / "unheard-of.safetensors", spheres)
    assert "unheard-of" not in ModelStore().paths()
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path))
    assert ModelStore().find("unheard-of") == tmp_path / "unheard-of.safetensors"


def test_a_later_folder_takes_precedence(spheres: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starter, environment, given = (tmp_path / name for name in ("starter", "environment", "given"))
    monkeypatch.setattr("sdf_backend.model.store.STARTER_MODELS", starter)
    monkeypatch.setenv(MODELS_VARIABLE, str(environment))
    for folder, names in ((starter, "abc"), (environment, "bc"), (given, "c")):
        for name in names:
            save_model(folder / f"{name}.safetensors", spheres)
    paths = ModelStore(given).paths()
    assert {name: path.parent for name, path in paths.items()} == {"a": starter, "b": environment, "c": given}


def test_a_temporary_file_of_a_killed_writer_is_not_listed(spheres: Model, tmp_path: Path) -> None:
    save_model(tmp_path / "spheres.safetensors", spheres)
    (tmp_path / ".spheres.4711.tmp.safetensors").write_bytes(b"half")
    ours = [path for path in ModelStore(tmp_path).paths().values() if path.parent == tmp_path]
    assert ours == [tmp_path / "spheres.safetensors"]


def test_a_model_is_found_by_its_own_path(spheres: Model, tmp_path: Path) -> None:
    path = tmp_path / "anywhere.safetensors"
    save_model(path, spheres)
    assert ModelStore().find(str(path)) == path


def test_missing_folders_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="elsewhere does not exist"):
        ModelStore(tmp_path / "elsewhere")
    monkeypatch.setenv(MODELS_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="nowhere does not exist"):
        ModelStore()


def test_the_card_keeps_all_fields(spheres: Model, tmp_path: Path) -> None:
    card = replace(spheres.card, training={"epochs": 3}, accuracy={"known": {"chamfer": 0.1}})
    save_model(tmp_path / "spheres.safetensors", replace(spheres, card=card))
    assert asdict(read_card(tmp_path / "spheres.safetensors")) == asdict(card)


def test_the_digest_of_a_model_is_that_of_its_file(models_folder: Path, tmp_path: Path) -> None:
    content = (models_folder / "spheres.safetensors").read_bytes()
    (tmp_path / "spheres.safetensors").write_bytes(content)
    here, there = ModelStore(models_folder), ModelStore(tmp_path)
    before = there.digest("spheres")
    assert before == here.digest("spheres")
    (tmp_path / "spheres.safetensors").write_bytes(content + b"more")
    assert there.digest("spheres") != before
    (tmp_path / "spheres.safetensors").unlink()
    with pytest.raises(InputError, match="unknown model"):
        there.digest("spheres")
