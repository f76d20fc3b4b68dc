"""Reports of the command line as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table


def two_columns(title: str, rows: Mapping[str, str]) -> Table:
    """A table with names on the left, values on the right."""
    table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def reconstruction_table(report: dict[str, Any]) -> Table:
    """How the geometry was found, and how reliable it is."""
    return two_columns("Geometry", _reconstruction_rows(report["reconstruction"]))


def run_table(report: dict[str, Any]) -> Table:
    """The geometry, and the walk through it."""
    run = report["run"]
    hallucinated = run["hallucinated_fraction"]
    inputs, warm_up, planned = report["inputs"], report["warm_up"], report["memory_plan_gb"]
    preset = inputs["generator_options"].get("preset")
    rows = {
        **_reconstruction_rows(report["reconstruction"]),
        "generator": inputs["generator"] + (f", {preset}" if preset else ""),
        **({"notice": "; ".join(report["notices"])} if report["notices"] else {}),
        **({"memory": f"{planned['total']:.2f} GB planned"} if planned else {}),
        **({"compiled": f"{warm_up['num_graphs']} graphs in {warm_up['seconds']:.0f} s"} if warm_up else {}),
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
    """The findings of `doctor.examine`."""
    machine, libraries, weights = health["machine"], health["system_libraries"], health["weights"]
    devices = {
        device["device"]: device["name"] + (f", {device['memory_gb']} GB" if device["memory_gb"] else "")
        for device in health["devices"]
    }
    found = {entry["folder"]: f"{entry['method']}: {entry['model']}" for entry in weights["found"]}
    where = weights["folder"] or "no folder given: use --weights DIR or INSPATIO_WEIGHTS"
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
        *([two_columns("Packages that do not import", health["broken"])] if health["broken"] else []),
        _runs_table("Tried", health["trials"]),
        two_columns("Weights", found or {"none": where}),
        _runs_table("Reconstruction methods", health["methods"]),
        _runs_table("Generators", health["generators"]),
    ]


def _runs_table(title: str, entries: dict[str, dict[str, Any]]) -> Table:
    return two_columns(
        title, {name: f"{'runs' if entry['runs'] else 'no'}: {entry['why']}" for name, entry in entries.items()}
    )


def weights_list_tables(report: dict[str, Any]) -> list[Table]:
    """The models, and every file that one of them needs, found or missing."""
    models, files = {}, {}
    for preset in report["presets"]:
        lacking = [file["role"] for file in preset["files"] if file["is_needed"] and not file["path"]]
        state = f"lacks {' and '.join(lacking)}" if lacking else "complete"
        parameters = f"{preset['num_parameters'] / 1e6:,.0f} million parameters"
        models[preset["name"]] = f"{preset['summary']}; {parameters}; {preset['publication']}; {state}"
        files |= {file["label"]: _file_state(file) for file in preset["files"]}
    return [two_columns("Models", models), two_columns("Files", files)]


def weights_check_tables(report: dict[str, Any]) -> list[Table]:
    """One table per checkpoint, and the files the preset lacks."""
    tables = [_checkpoint_table(checkpoint) for checkpoint in report["checkpoints"]]
    return [*tables, _preset_table(report["preset"])] if report["preset"] else tables


def _preset_table(preset: dict[str, Any]) -> Table:
    rows = {
        "": preset["summary"],
        "parameters": f"{preset['num_parameters'] / 1e6:,.0f} million",
        "publication": preset["publication"],
        "complete": "yes" if preset["ok"] else "no",
    }
    rows |= {file["role"].replace("_", " "): f"{file['label']}: {_file_state(file)}" for file in preset["files"]}
    return two_columns(preset["name"], rows)


def _file_state(file: dict[str, Any]) -> str:
    """Where a file is, or where it is published and how to get it."""
    licence = f"licence: {file['licence']}"
    if file["path"]:
        return f"{file['path']}; {licence}"
    size = f", {file['size_gb']:g} GB" if file["size_gb"] else ""
    note = f"; {file['note']}" if file["note"] and file["note"] != file["origin"] else ""
    get = f": {file['command']}" if file["command"] else ""
    return f"{file['problem'] or 'not here'}; {file['origin']}{size}{note}; {licence}{get}"


def _checkpoint_table(checkpoint: dict[str, Any]) -> Table:
    if checkpoint["problem"]:
        return two_columns(checkpoint["path"], {"problem": checkpoint["problem"]})
    dtypes = ", ".join(f"{count} {dtype}" for dtype, count in checkpoint["dtypes"].items())
    millions = f"{checkpoint['num_parameters'] / 1e6:,.3f} million"
    rows = {
        "holds": checkpoint["what"],
        "fits": ", ".join(checkpoint["presets"]) or "no preset",
        "format": f"{checkpoint['format']}, {len(checkpoint['files'])} files, {checkpoint['num_bytes'] / 1e9:.3f} GB",
        "tensors": f"{checkpoint['num_tensors']} with {millions} numbers: {dtypes}",
        "publication": checkpoint["publication"] or "unknown from the file",
        "licence": checkpoint["licence"] or "unknown from the file",
    }
    if checkpoint["sha256"]:
        rows["numbers"] = "all finite"
        rows |= {f"sha256 of {name}": digest for name, digest in checkpoint["sha256"].items()}
    return two_columns(checkpoint["path"], rows)
