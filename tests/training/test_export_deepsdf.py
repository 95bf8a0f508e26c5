"""Exported experiments: the released network computes our distances with them, and importing them gives our model."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from sdf_backend.errors import InputError
from sdf_backend.model.decoder import Decoder, DecoderSettings
from sdf_backend.model.store import Model, ModelCard, save_model
from training.catalog import read_split
from training.cli import app
from training.export_deepsdf import export_deepsdf
from training.import_deepsdf import import_deepsdf

WITH_NORM = DecoderSettings(code_length=5, width=24, layers=6, skip_at=3, dropout=0.2)
PLAIN = DecoderSettings(code_length=7, width=32, layers=8, skip_at=4, dropout=0.0, weight_norm=False)


def made(settings: DecoderSettings) -> Model:
    torch.manual_seed(0)
    decoder = Decoder(settings)
    with torch.no_grad():
        for value in decoder.parameters():
            value.add_(torch.randn(value.shape) * 0.05)  # else directions have the lengths that are stored beside them
    card = ModelCard("chairs", "+y", "-z", 0.1, {}, shapes=["a", "b", "c"], training={"epochs": 9})
    return Model(card, decoder.eval().requires_grad_(False), torch.randn(3, settings.code_length))


def released(folder: Path, shape: int, points: Tensor) -> Tensor:
    """Distances of the released network, `deep_sdf_decoder.Decoder.forward`, of an experiment's files."""
    specs = json.loads((folder / "specs.json").read_text())
    network = specs["NetworkSpecs"]
    stored = torch.load(folder / "ModelParameters" / "latest.pth", weights_only=True)["model_state_dict"]
    codes = torch.load(folder / "LatentCodes" / "latest.pth", weights_only=True)["latent_codes"]["weight"]
    assert codes.shape[1] == specs["CodeLength"]
    given = torch.cat([codes[shape].expand(len(points), -1), points], 1)
    x, layers = given, len(network["dims"]) + 1
    for layer in range(layers):
        if layer in network["latent_in"]:
            x = torch.cat([x, given], 1)
        name = f"module.lin{layer}"
        if network["weight_norm"] and layer in network["norm_layers"]:
            rows = stored[f"{name}.weight_v"]
            weight = stored[f"{name}.weight_g"] * rows / rows.norm(dim=1, keepdim=True)
        else:
            weight = stored[f"{name}.weight"]
        x = x @ weight.T + stored[f"{name}.bias"]
        if layer < layers - 1:
            x = x.relu()
    return x.tanh()[:, 0]


@pytest.mark.parametrize("settings", [WITH_NORM, PLAIN], ids=["weight normalisation", "plain"])
def test_the_released_network_and_an_import_compute_the_same_distances(
    tmp_path: Path, settings: DecoderSettings
) -> None:
    model = made(settings)
    export_deepsdf(model, tmp_path / "chairs")
    points = torch.rand(500, 3) * 2 - 1
    imported = import_deepsdf(tmp_path / "chairs", "chairs", read_split(tmp_path / "chairs" / "train.json"))
    assert imported.card.shapes == model.card.shapes
    assert torch.equal(imported.codes, model.codes)
    for shape in range(3):
        ours = model.decoder(model.codes[shape : shape + 1], points[None])[0]
        assert float(ours.std()) > 1e-3
        assert torch.allclose(released(tmp_path / "chairs", shape, points), ours, atol=1e-6)
        assert torch.allclose(imported.decoder(imported.codes[shape : shape + 1], points[None])[0], ours, atol=1e-6)


def test_the_command_exports_a_model_file_and_refuses_a_symmetric_one(tmp_path: Path) -> None:
    for name, mirror in (("plain", None), ("symmetric", 0)):
        settings = DecoderSettings(code_length=4, width=16, layers=4, skip_at=2, dropout=0.0, mirror_axis=mirror)
        model = made(settings)
        card = ModelCard(name, "+y", "-z", 0.1, vars(settings), shapes=["a", "b", "c"])
        save_model(tmp_path / f"{name}.safetensors", Model(card, model.decoder, model.codes))
    runner = CliRunner()
    done = runner.invoke(app, ["export-deepsdf", str(tmp_path / "plain.safetensors"), "-o", str(tmp_path / "out")])
    assert (done.exit_code, done.stdout) == (0, f"experiment: {tmp_path / 'out'}, 3 shapes\n"), done.stderr
    done = runner.invoke(app, ["export-deepsdf", str(tmp_path / "symmetric.safetensors"), "-o", str(tmp_path / "no")])
    assert done.exit_code == 1
    assert "symmetric was trained with --symmetric, which the released network cannot express" in done.stderr
    assert not (tmp_path / "no").exists()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        export_deepsdf(made(PLAIN), tmp_path / "file")
