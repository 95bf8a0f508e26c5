"""Shared by all tests."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from sdf_backend.model.card import ModelCard
from sdf_backend.model.decoder import Decoder, DecoderSettings
from sdf_backend.model.store import Model, save_model

# The networks here are tiny; a second thread costs more than it gives, the more so where cores are shared.
torch.set_num_threads(1)

# How long an example takes says how busy the machine is; and fixtures of these tests are not changed by an example.
UNCHECKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("on any machine", deadline=None, suppress_health_check=UNCHECKED)
settings.load_profile("on any machine")


@pytest.fixture(scope="session")
def spheres() -> Model:
    """A model whose shapes are spheres about the origin: the code's first number is ten times the radius less 0.5."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    settings = DecoderSettings(code_length=3, width=48, layers=4, skip_at=2, dropout=0.0)
    decoder = Decoder(settings)
    optimiser = torch.optim.Adam(decoder.parameters(), lr=3e-3)
    steps = 400
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        codes = torch.randn(16, 3, generator=generator) * 0.6
        # Half the points fill the cube, half lie near the surfaces.
        cube = torch.rand(16, 64, 3, generator=generator) * 2.2 - 1.1
        near = torch.nn.functional.normalize(torch.randn(16, 64, 3, generator=generator), dim=-1)
        near = near * (0.5 + 0.1 * codes[:, None, :1] + 0.1 * torch.randn(16, 64, 1, generator=generator))
        points = torch.cat([cube, near], 1)
        target = points.norm(dim=-1) - 0.5 - 0.1 * codes[:, :1]
        loss = (decoder(codes, points).clamp(-0.1, 0.1) - target.clamp(-0.1, 0.1)).abs().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    codes = torch.randn(12, 3, generator=generator) * 0.5
    card = ModelCard(
        name="spheres",
        up="+y",
        front="-z",
        clamp=0.1,
        decoder=asdict(settings),
        reach=0.5,
        shapes=[f"sphere{index}" for index in range(len(codes))],
        sources=[{"licence": "CC0-1.0", "creator": "the tests", "shapes": len(codes)}],
    )
    return Model(card, decoder.eval().requires_grad_(False), codes)


@pytest.fixture(scope="session")
def models_folder(spheres: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the model `spheres`."""
    folder = tmp_path_factory.mktemp("models")
    save_model(folder / "spheres.safetensors", spheres)
    return folder
