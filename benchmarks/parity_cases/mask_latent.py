"""Known masks on the latent grid against the reference implementation."""

from __future__ import annotations

from benchmarks.golden import GoldenCase, ParityReport
from inspatio_sim.generators.blocks.mask_latent import mask_latent

MASK_TOLERANCE = 1e-6


def measure(case: GoldenCase, report: ParityReport) -> None:
    """Recompute every latent mask; the stored videos are B C T H W."""
    for key, (name,) in case.matching(r"in\.(.+)"):
        latent = mask_latent(case[key].transpose(1, 2))
        golden = case[f"out.{name}"]
        kind = name.rsplit(".", 1)[0]
        report.compare(f"{case.name}/{kind}", f"out.{name}", latent, golden, tolerance=MASK_TOLERANCE, unit="1")
