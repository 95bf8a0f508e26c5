"""Imported experiments of the released DeepSDF code compute the same distances."""

import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from mutations import SEED, mutate
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


def _renamed(weights: Weights) -> Weights:
    """The same weights under the names that weight normalisation has since torch 2.1."""
    newer = {"weight_g": "parametrizations.weight.original0", "weight_v": "parametrizations.weight.original1"}
    return {
        f"{name.rpartition('.')[0]}.{newer.get(name.rpartition('.')[2], name.rpartition('.')[2])}": value
        for name, value in weights.items()
    }


def test_newer_names_of_weight_normalisation_give_the_same_distances(experiment: Write) -> None:
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(2)) * 2 - 1
    model = import_deepsdf(experiment(weights=_renamed(_weights(normalised=True))), "chairs")
    expected = _released(_weights(normalised=True), _codes()[0], points).float()
    assert torch.allclose(model.decoder(model.codes[:1], points[None])[0], expected, atol=1e-6)


NAN = float("nan")
ODD_SPECS = [
    ({"CodeLength": [2, 2]}, "CodeLength is [2, 2], not a whole number"),
    ({"CodeLength": "8"}, "CodeLength is '8'"),
    ({"CodeLength": 8.0}, "CodeLength is 8.0"),
    ({"CodeLength": True}, "CodeLength is True"),
    ({"CodeLength": None}, "CodeLength is None"),
    ({"CodeLength": 10**12}, "CodeLength is 1000000000000"),
    ({"CodeLength": 40}, "decoder.width is 32; it must be above 43"),
    ({"ClampingDistance": NAN}, "ClampingDistance is nan, not a number above 0"),
    ({"ClampingDistance": -1}, "ClampingDistance is -1"),
    ({"ClampingDistance": 0}, "ClampingDistance is 0"),
    ({"ClampingDistance": "0.1"}, "ClampingDistance is '0.1'"),
    ({"ClampingDistance": None}, "ClampingDistance is None"),
    ({"NetworkArch": ["deep_sdf_decoder"]}, "NetworkArch is ['deep_sdf_decoder'], not text"),
    ({"NetworkSpecs": [1]}, "NetworkSpecs is [1], not an object"),
    ({"NetworkSpecs": {}}, "it has no NetworkSpecs.dims"),
    ({"Description": json.loads("[" * 40 + "]" * 40)}, "nested too deeply"),
]
ODD_NETWORKS = [
    ({"dims": 32}, "NetworkSpecs.dims is 32, not a list"),
    ({"dims": [32.5] * LAYERS}, "NetworkSpecs.dims is [32.5"),
    ({"dims": [-32] * LAYERS}, "NetworkSpecs.dims is [-32"),
    ({"dims": []}, "NetworkSpecs.dims is []"),
    ({"dims": [16384] * 64}, "not of the network"),
    ({"dims": [32] * 100_000}, "NetworkSpecs.dims is [32"),
    ({"latent_in": 2}, "NetworkSpecs.latent_in is 2"),
    ({"latent_in": ["2"]}, "NetworkSpecs.latent_in is ['2']"),
    ({"norm_layers": "all"}, "NetworkSpecs.norm_layers is 'all'"),
    ({"dropout": True}, "NetworkSpecs.dropout is True"),
    ({"dropout_prob": "0.2"}, "NetworkSpecs.dropout_prob is '0.2'"),
    ({"dropout_prob": NAN}, "NetworkSpecs.dropout_prob is nan"),
    ({"dropout_prob": 7}, "NetworkSpecs.dropout_prob is 7"),
    ({"weight_norm": "yes"}, "NetworkSpecs.weight_norm is 'yes'"),
    ({"use_tanh": 1}, "NetworkSpecs.use_tanh is 1"),
]


def check_refused(folder: Path, said: str) -> None:
    """The command must end in one line that says this, and write nothing."""
    file = folder.parent / "chairs.safetensors"
    result = CliRunner().invoke(app, ["import-deepsdf", str(folder), "-o", str(file)])
    assert (result.exit_code, result.stderr.count("\n"), file.exists()) == (1, 1, False), result.output
    assert said in result.stderr and len(result.stderr) < 600


@pytest.mark.parametrize(("changes", "said"), ODD_SPECS, ids=lambda value: str(value)[:50])
def test_a_specification_with_a_field_of_a_wrong_type_or_size_is_one_line(
    experiment: Write, changes: dict, said: str
) -> None:
    file = experiment() / "specs.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    check_refused(file.parent, said)


@pytest.mark.parametrize(("network", "said"), ODD_NETWORKS, ids=lambda value: str(value)[:50])
def test_a_network_with_a_field_of_a_wrong_type_or_size_is_one_line(
    experiment: Write, network: dict, said: str
) -> None:
    check_refused(experiment(network), said)


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff\xfe", b"{" * 5000, b'{"CodeLength": 8}'])
def test_what_is_no_specification_is_one_line(experiment: Write, content: bytes) -> None:
    file = experiment() / "specs.json"
    file.write_bytes(content)
    check_refused(file.parent, "cannot use")


ODD_CODES = [
    ([1.0, 2.0], "codes of the checkpoint is list"),
    (None, "it has no codes"),
    ({}, "it has no codes"),
    ({"weight": [1.0]}, "codes of the checkpoint is list"),
    (torch.zeros(SHAPES, CODE, dtype=torch.int64), "is torch.int64, not a dense tensor"),
    (torch.zeros(SHAPES, CODE, dtype=torch.complex64), "is torch.complex64"),
    (torch.zeros(SHAPES, CODE).to_sparse(), "not a dense tensor"),
    (torch.zeros(()), "the codes have the shape ()"),
    (torch.zeros(CODE), "the codes have the shape (8,)"),
    (torch.zeros(2, SHAPES, CODE), "the codes have the shape (2, 3, 8)"),
    (torch.zeros(1, CODE).expand(10**10, CODE), "but not as many numbers"),
]


@pytest.mark.parametrize(("codes", "said"), ODD_CODES, ids=lambda value: str(value)[:50])
def test_codes_of_a_wrong_type_or_shape_are_one_line(experiment: Write, codes: object, said: str) -> None:
    folder = experiment()
    torch.save({"latent_codes": codes}, folder / "LatentCodes" / "latest.pth")
    check_refused(folder, said)


ODD_WEIGHTS = [
    ("module.lin0.bias", [0.0] * WIDTH, "lin0.bias of the checkpoint is list"),
    ("module.lin0.bias", torch.zeros(WIDTH, 1), "hidden.0.bias has the shape (32, 1), not (32,)"),
    ("module.lin0.weight_v", torch.zeros(WIDTH), "lin0.weight_v has the shape (32,), which is not that of a matrix"),
    ("module.lin0.weight_g", torch.zeros(1, WIDTH), "lin0 has (1, 32) lengths for 32 rows"),
    ("module.lin1.weight_v", torch.zeros(5, 5, dtype=torch.int32), "is torch.int32"),
    ("module.lin2.weight_v", torch.zeros(WIDTH, WIDTH), "not finite"),
]


@pytest.mark.parametrize(("name", "value", "said"), ODD_WEIGHTS, ids=lambda value: str(value)[:50])
def test_weights_of_a_wrong_type_or_shape_are_one_line(experiment: Write, name: str, value: object, said: str) -> None:
    check_refused(experiment(weights=_weights(normalised=True) | {name: value}), said)


@pytest.mark.parametrize("content", [[], "text", torch.zeros(3), {"latent_codes": torch.zeros(3, 8)}, {}])
def test_a_checkpoint_without_weights_is_one_line(experiment: Write, content: object) -> None:
    folder = experiment()
    torch.save(content, folder / "ModelParameters" / "latest.pth")
    check_refused(folder, "it has no model_state_dict; choose another --checkpoint")


def test_no_refusal_advises_to_read_what_may_run_code(experiment: Write, tmp_path: Path) -> None:
    folder = experiment()
    torch.save({"latent_codes": _Code(tmp_path / "ran")}, folder / "LatentCodes" / "latest.pth")
    check_refused(folder, "it is damaged, or holds more than tensors, which could run code")


def test_a_name_that_no_card_holds_is_refused_before_a_model_is_written(experiment: Write, tmp_path: Path) -> None:
    file = tmp_path / f"{'x' * 220}.safetensors"
    result = CliRunner().invoke(app, ["import-deepsdf", str(experiment()), "-o", str(file)])
    assert result.exit_code == 1 and "not text of at most 200 characters" in result.stderr
    assert not file.exists()


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


@pytest.mark.parametrize("part", ["specs.json", "ModelParameters/latest.pth", "LatentCodes/latest.pth"])
def test_a_mutated_experiment_is_imported_or_refused_in_one_sentence(experiment: Write, part: str) -> None:
    print(f"seed {SEED}")
    draw, folder, refused = random.Random(SEED), experiment(), 0
    content = (folder / part).read_bytes()
    for _ in range(150):
        (folder / part).write_bytes(mutate(content, draw))
        try:
            model = import_deepsdf(folder, "chairs")
        except InputError as error:
            assert "\n" not in str(error) and "Traceback" not in str(error)
            refused += 1
        else:
            assert torch.isfinite(model.codes).all()
    assert refused > 10
