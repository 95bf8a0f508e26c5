"""The folded decoder against the trained network and automatic differentiation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sdf_backend.model.decoder import Decoder, DecoderSettings, initial_codes, weight_shapes

SMALL = DecoderSettings(code_length=6, width=32, layers=8, skip_at=4, dropout=0.0)


def made(settings: DecoderSettings = SMALL, seed: int = 0) -> Decoder:
    torch.manual_seed(seed)
    decoder = Decoder(settings)
    with torch.no_grad():  # the default weights give nearly constant functions, which would hide errors
        for parameter in decoder.parameters():
            parameter.mul_(1.5)
    return decoder.eval()


def test_the_default_settings_have_the_papers_number_of_parameters() -> None:
    # 1.84 million: eight layers of 512, code 256, gains of weight normalisation included.
    assert sum(parameter.numel() for parameter in Decoder(DecoderSettings()).parameters()) == 1_843_195


@pytest.mark.parametrize("mirror", [None, 0, 2])
def test_the_folded_decoder_computes_the_same_distances(mirror: int | None) -> None:
    decoder = made(DecoderSettings(6, 32, 8, 4, 0.0, mirror))
    codes, points = torch.randn(3, 6), torch.rand(3, 40, 3) * 2 - 1
    torch.testing.assert_close(decoder.folded().distances(codes, points), decoder(codes, points))


@settings(max_examples=20)
@given(seed=st.integers(0, 10_000), mirror=st.sampled_from([None, 0, 1, 2]))
def test_gradients_equal_those_of_automatic_differentiation(seed: int, mirror: int | None) -> None:
    decoder = made(DecoderSettings(6, 32, 8, 4, 0.0, mirror), seed)
    codes = torch.randn(2, 6, requires_grad=True)
    points = (torch.rand(2, 15, 3) * 2 - 1).requires_grad_()
    decoder(codes, points).sum().backward()
    distance, by_code, by_point = decoder.folded().gradients(codes.detach(), points.detach())
    torch.testing.assert_close(by_code.sum(1), codes.grad, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(by_point, points.grad, atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(distance, decoder(codes, points).detach())


def test_the_vector_jacobian_product_is_the_weighted_sum_of_all_gradients() -> None:
    folded = made().folded()
    codes, points = torch.randn(2, 6), torch.rand(2, 30, 3)
    distance, by_code, _ = folded.gradients(codes, points)
    expected = (by_code * distance.cos()[..., None]).sum(1)
    torch.testing.assert_close(folded.pull_back(codes, points, torch.cos), expected, atol=1e-5, rtol=1e-4)


def test_a_change_of_basis_gives_the_same_function_in_other_coordinates() -> None:
    folded = made().folded()
    mean, root, u, points = torch.randn(6), torch.randn(6, 6), torch.randn(2, 6), torch.rand(2, 30, 3)
    changed = folded.in_basis(mean, root)
    torch.testing.assert_close(changed.distances(u, points), folded.distances(mean + u @ root.T, points))
    _, by_u, _ = changed.gradients(u, points)
    _, by_code, _ = folded.gradients(mean + u @ root.T, points)
    torch.testing.assert_close(by_u, by_code @ root, atol=1e-5, rtol=1e-4)


def test_a_mirrored_decoder_is_symmetric_and_a_plain_one_is_not() -> None:
    codes, points = torch.randn(1, 6), torch.rand(1, 30, 3) * 2 - 1
    flipped = points * torch.tensor([1.0, 1.0, -1.0])
    mirrored = made(DecoderSettings(6, 32, 8, 4, 0.0, mirror_axis=2))
    torch.testing.assert_close(mirrored(codes, points), mirrored(codes, flipped))
    assert (made()(codes, points) - made()(codes, flipped)).abs().max() > 1e-3


def test_dropout_is_active_in_training_only() -> None:
    decoder = made(DecoderSettings(6, 32, 8, 4, dropout=0.5))
    codes, points = torch.randn(1, 6), torch.rand(1, 30, 3)
    torch.testing.assert_close(decoder(codes, points), decoder(codes, points))
    decoder.train()
    assert (decoder(codes, points) - decoder(codes, points)).abs().max() > 0


def test_bfloat16_is_near_float32() -> None:
    decoder = made()
    codes, points = torch.randn(2, 6), torch.rand(2, 200, 3)
    exact, rough = decoder.folded().distances(codes, points), decoder.folded(torch.bfloat16).distances(codes, points)
    assert (exact - rough).abs().max() < 0.03 * exact.abs().max()


def test_initial_codes_have_norm_about_one() -> None:
    codes = initial_codes(500, 64, torch.Generator().manual_seed(0))
    assert codes.norm(dim=1).mean() == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("weight_norm", [True, False])
def test_the_shapes_of_the_weights_are_known_without_a_decoder(weight_norm: bool) -> None:
    settings = DecoderSettings(code_length=5, width=24, layers=5, skip_at=3, weight_norm=weight_norm)
    made = {name: tuple(value.shape) for name, value in Decoder(settings).state_dict().items()}
    assert weight_shapes(settings) == made
