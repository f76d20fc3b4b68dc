"""Reports of the command line as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def two_columns(title: str, rows: Mapping[str, str]) -> Table:
    """Names left, values right."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def reconstruction_table(report: dict[str, Any]) -> Table:
    """How the geometry was found, and how much to believe it."""
    return two_columns("Geometry", _reconstruction_rows(report["reconstruction"]))


def run_table(report: dict[str, Any]) -> Table:
    """The geometry, and the walk through it."""
    run = report["run"]
    hallucinated = run["hallucinated_fraction"]
    rows = {
        **_reconstruction_rows(report["reconstruction"]),
        "walk": f"{run['num_frames']} frames, {run['path_length_m']:.2f} m, in {run['seconds']:.1f} s",
        "invented": f"{hallucinated['mean']:.1%} of the pixels, {hallucinated['max']:.1%} in the worst frame",
        "collisions": str(run["collisions"]["num"]),
        "map": f"{run['map']['num_points']:,} points, {run['map']['memory_mb']:.0f} MB",
    }
    return two_columns("The run", rows)


def _reconstruction_rows(reconstruction: dict[str, Any]) -> dict[str, str]:
    quality = ", ".join(f"{name} {value:.3g}" for name, value in reconstruction["quality"].items())
    scale = reconstruction["scale"]
    height_px, width_px = reconstruction["size_px"]
    rows = {
        "clip": f"{reconstruction['num_frames']} frames of {height_px}x{width_px} at {reconstruction['fps']:.3g} fps",
        "method": f"{reconstruction['method']}: {reconstruction['reason']}",
        "metres from": f"{scale['source']}: {scale['note']}",
        "quality": quality or "not measured",
    }
    if reconstruction["warnings"]:
        rows["warnings"] = "; ".join(reconstruction["warnings"])
    return rows


def doctor_tables(health: dict[str, Any]) -> list[Table]:
    """Everything `doctor.examine` found."""
    machine, libraries, weights = health["machine"], health["system_libraries"], health["weights"]
    devices = {
        device["device"]: device["name"] + (f", {device['memory_gb']} GB" if device["memory_gb"] else "")
        for device in health["devices"]
    }
    found = {entry["folder"]: f"{entry['method']}: {entry['model']}" for entry in weights["found"]}
    where = weights["folder"] or "no folder named: --weights DIR or INSPATIO_WEIGHTS"
    system = {
        "python": f"{health['python']['version']} ({health['python']['executable']})",
        "platform": health["python"]["platform"],
        "cores": str(machine["cores"]),
        "memory": f"{machine['memory_gb']} GB, {machine['memory_available_gb']} GB free",
        **devices,
        "system libraries": "all found" if libraries["open3d_imports"] else str(libraries["open3d_error"]),
    }
    if libraries["install"]:
        system["to install"] = libraries["install"]
    return [
        two_columns("Machine", system),
        two_columns("Packages", {name: version or "-" for name, version in health["packages"].items()}),
        two_columns("Weights", found or {"none": where}),
        _runs_table("Reconstruction methods", health["methods"]),
        _runs_table("Generators", health["generators"]),
    ]


def _runs_table(title: str, entries: dict[str, dict[str, Any]]) -> Table:
    return two_columns(
        title, {name: f"{'runs' if entry['runs'] else 'no'}: {entry['why']}" for name, entry in entries.items()}
    )
