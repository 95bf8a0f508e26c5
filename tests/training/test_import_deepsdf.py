"""Imported experiments of the released DeepSDF code compute the same distances."""

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from sdf_backend.model.store import ModelStore, load_model
from training.cli import app
from training.import_deepsdf import import_deepsdf

CODE, WIDTH, LAYERS, SKIP, SHAPES = 8, 32, 4, 2, 3
Weights = dict[str, Tensor]


def _weights(normalised: bool) -> Weights:
    """Random weights under the names of the released decoder, as its data-parallel trainer writes them."""
    generator = torch.Generator().manual_seed(0)
    sizes = [CODE + 3, *[WIDTH] * LAYERS, 1]
    weights = {}
    for number, (inside, outside) in enumerate(pairwise(sizes)):
        outside -= CODE + 3 if number + 1 == SKIP else 0
        matrix = torch.randn(outside, inside, generator=generator) / inside**0.5
        if normalised and number < LAYERS:
            weights[f"module.lin{number}.weight_g"] = torch.rand(outside, 1, generator=generator) + 0.5
            weights[f"module.lin{number}.weight_v"] = matrix
        else:
            weights[f"module.lin{number}.weight"] = matrix
        weights[f"module.lin{number}.bias"] = torch.randn(outside, generator=generator) / 10
    return weights


def _released(weights: Weights, code: Tensor, points: Tensor) -> Tensor:
    """The released decoder (Park et al., section 4.1): [code, point], the same again at the skip connection, tanh."""
    given = torch.cat([code.expand(len(points), -1), points], 1).double()
    x = given
    for number in range(LAYERS + 1):
        name = f"module.lin{number}"
        if f"{name}.weight" in weights:
            matrix = weights[f"{name}.weight"].double()
        else:
            rows = weights[f"{name}.weight_v"].double()
            matrix = weights[f"{name}.weight_g"].double() * rows / rows.norm(dim=1, keepdim=True)
        x = torch.cat([x, given], 1) if number == SKIP else x
        x = x @ matrix.T + weights[f"{name}.bias"].double()
        x = x.relu() if number < LAYERS else x
    return x.tanh()[:, 0]


Write = Callable[..., Path]


@pytest.fixture
def experiment(tmp_path: Path) -> Write:
    """Writes the folder of an experiment; arguments replace parts of it."""

    def write(
        network: dict | None = None, weights: Weights | None = None, codes: object = None, normalised: bool = True
    ) -> Path:
        folder = tmp_path / "chairs-experiment"
        for part in ("ModelParameters", "LatentCodes"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        every = list(range(LAYERS))
        described = {
            "dims": [WIDTH] * LAYERS,
            "dropout": every,
            "dropout_prob": 0.2,
            "norm_layers": every if normalised else [],
            "latent_in": [SKIP],
            "xyz_in_all": False,
            "use_tanh": False,
            "latent_dropout": False,
            "weight_norm": normalised,
        } | (network or {})
        specs = {"NetworkArch": "deep_sdf_decoder", "NetworkSpecs": described}
        specs |= {"CodeLength": CODE, "ClampingDistance": 0.05}
        (folder / "specs.json").write_text(json.dumps(specs))
        state = _weights(normalised) if weights is None else weights
        torch.save({"epoch": 2000, "model_state_dict": state}, folder / "ModelParameters" / "latest.pth")
        torch.save(
            {"epoch": 2000, "latent_codes": {"weight": _codes()} if codes is None else codes},
            folder / "LatentCodes" / "latest.pth",
        )
        return folder

    return write


def _codes() -> Tensor:
    return torch.randn(SHAPES, CODE, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("normalised", [True, False])
def test_distances_are_those_of_the_released_decoder(experiment: Write, normalised: bool) -> None:
    model = import_deepsdf(experiment(normalised=normalised), "chairs")
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    found = model.decoder(model.codes, points.expand(SHAPES, -1, -1))
    folded = model.folded(torch.float32).distances(model.codes, points.expand(SHAPES, -1, -1))
    for number, code in enumerate(_codes()):
        expected = _released(_weights(normalised), code, points).float()
        assert torch.allclose(found[number], expected, atol=1e-6)
        assert torch.allclose(folded[number], expected, atol=1e-6)


def test_a_unit_with_zero_weights_is_imported(experiment: Write) -> None:
    weights = _weights(normalised=False)
    weights["module.lin1.weight"][3] = 0
    model = import_deepsdf(experiment(weights=weights, normalised=False), "chairs")
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    expected = _released(weights, _codes()[0], points).float()
    assert torch.allclose(model.decoder(model.codes[:1], points[None])[0], expected, atol=1e-6)


def test_codes_of_the_first_release_are_read(experiment: Write) -> None:
    assert torch.equal(import_deepsdf(experiment(codes=_codes()[:, None]), "chairs").codes, _codes())


def test_the_command_writes_a_model_for_the_backend(experiment: Write, tmp_path: Path) -> None:
    split = tmp_path / "train.json"
    split.write_text(json.dumps({"ShapeNetV2": {"03001627": ["c", "a", "b"]}}))
    file = tmp_path / "models" / "chairs.safetensors"
    arguments = ["--split", str(split), "--licence", "ShapeNet", "--creator", "ShapeNet"]
    result = CliRunner().invoke(app, ["import-deepsdf", str(experiment()), "-o", str(file), *arguments])
    assert result.exit_code == 0, result.stderr
    assert "3 shapes" in result.stdout
    card = load_model(file).card
    assert (card.name, card.up, card.front, card.clamp, card.shapes) == ("chairs", "+y", "-z", 0.05, ["c", "a", "b"])
    assert card.sources == [{"licence": "ShapeNet", "creator": "ShapeNet", "shapes": 3}]
    assert card.training["specs"]["CodeLength"] == CODE
    assert ModelStore(file.parent).find("chairs") == file


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"use_tanh": True}, "use_tanh = True"),
        ({"xyz_in_all": True}, "xyz_in_all = True"),
        ({"weight_norm": False}, "norm_layers"),
        ({"latent_in": [1, 2]}, "latent_in"),
        ({"latent_in": []}, "latent_in"),
        ({"dims": [32, 32, 16, 32]}, "dims"),
        ({"dims": [64] * LAYERS}, "not of the network"),
        ({"dims": [WIDTH] * 5}, "not of the network"),
    ],
)
def test_other_architectures_are_rejected(experiment: Write, network: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        import_deepsdf(experiment(network), "chairs")


def test_missing_and_damaged_parts_are_named_in_the_error(experiment: Write, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the folder of a DeepSDF experiment"):
        import_deepsdf(tmp_path, "chairs")
    folder = experiment()
    with pytest.raises(InputError, match=r"500\.pth.*another --checkpoint"):
        import_deepsdf(folder, "chairs", checkpoint="500")
    with pytest.raises(InputError, match="names 2 shapes.*has 3 codes"):
        import_deepsdf(folder, "chairs", ["a", "b"])
    with pytest.raises(InputError, match=r"\(3, 5\).*8 numbers per code"):
        import_deepsdf(experiment(codes={"weight": torch.zeros(3, 5)}), "chairs")
    with pytest.raises(InputError, match="not finite"):
        import_deepsdf(experiment(codes={"weight": _codes() * torch.nan}), "chairs")
    latest = experiment() / "ModelParameters" / "latest.pth"
    latest.write_bytes(latest.read_bytes()[:200])
    with pytest.raises(InputError, match="cannot read"):
        import_deepsdf(folder, "chairs")


class _Code:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple:
        return Path.touch, (self.file,)


def test_no_code_in_a_checkpoint_is_executed(experiment: Write, tmp_path: Path) -> None:
    folder = experiment()
    torch.save({"latent_codes": _Code(tmp_path / "ran")}, folder / "LatentCodes" / "latest.pth")
    with pytest.raises(InputError, match="cannot read"):
        import_deepsdf(folder, "chairs")
    assert not (tmp_path / "ran").exists()


def test_an_output_without_the_suffix_of_models_is_rejected(experiment: Write, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["import-deepsdf", str(experiment()), "-o", str(tmp_path / "chairs")])
    assert result.exit_code == 1
    assert "does not end in .safetensors" in result.stderr
