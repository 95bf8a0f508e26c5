"""Levenberg-Marquardt against 800 Adam steps (the released DeepSDF reconstruction), on every test shape.

    python -m benchmarks.fit

Both solvers use the same folded decoder, samples and precision. The loss is the mean clamped distance error over all
samples of a shape; times are seconds a shape, all shapes in one batch; ratios are against Adam in the same run.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.table import Table

from benchmarks.shared import DatasetOption, ModelOption, load, show, test_observations
from sdf_backend.fitting.adam_reference import AdamSettings, fit_codes_with_adam
from sdf_backend.fitting.fit import Fit, FitRequest, fit_codes
from sdf_backend.fitting.fit_settings import solid_settings
from sdf_backend.settings import Quality

# A fit has failed where it explains the shape this much worse than Adam's does.
FAILED = 1.5


def main(
    model: Annotated[str, ModelOption] = "airplanes",
    dataset: Annotated[Path, DatasetOption] = Path("data/airplanes"),
    device: Annotated[str, typer.Option()] = "cpu",
    float32: Annotated[bool, typer.Option(help="float32 instead of bfloat16, for both solvers")] = False,
) -> None:
    """Print the table."""
    loaded, data, names = load(model, dataset, device)
    observed = test_observations(data, names)
    dtype = torch.float32 if float32 else torch.bfloat16
    requests = [FitRequest(one) for one in observed]
    fit_codes(loaded, requests, solid_settings(Quality.PREVIEW, dtype))  # warms up caches and thread pools
    adam = fit_codes_with_adam(loaded, observed, AdamSettings(dtype=dtype))
    rows = [_row("Adam, 800 steps x 8,000", adam, adam)]
    for quality in Quality:
        settings = solid_settings(quality, dtype)
        fits = fit_codes(loaded, requests, settings)
        stages = " + ".join(f"{stage.steps} x {stage.points:,}" for stage in settings.stages)
        rows.append(_row(f"{quality}: LM, {stages}", fits, adam))
    table = Table("solver", "loss", "of Adam's", "worst shape", "s a shape", "of Adam's", "failed fits")
    for row in rows:
        table.add_row(
            row["solver"],
            f"{row['loss']:.5f}",
            f"{row['loss_ratio']:.3f}",
            f"{row['worst_ratio']:.3f}",
            f"{row['seconds']:.2f}",
            f"1/{1 / row['time_ratio']:.0f}",
            f"{row['failed']} of {len(names)}",
        )
    table.title = f"{len(names)} test shapes, {loaded.device}, {dtype}".replace("torch.", "")
    show(table, rows, "fit")


def _row(name: str, fits: list[Fit], reference: list[Fit]) -> dict:
    loss = np.array([fit.residual for fit in fits])
    expected = np.array([fit.residual for fit in reference])
    seconds = float(np.median([fit.seconds for fit in fits]))
    return {
        "solver": name,
        "loss": float(loss.mean()),
        "loss_ratio": float(loss.mean() / expected.mean()),
        "worst_ratio": float((loss / expected).max()),
        "seconds": seconds,
        "time_ratio": seconds / reference[0].seconds,
        "failed": int((loss > FAILED * expected).sum()),
    }


if __name__ == "__main__":
    typer.run(main)
