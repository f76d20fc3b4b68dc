"""COLMAP's sparse reconstruction in a separate process: images in, cameras and points out.

Run as `python -m inspatio_sim.reconstruction.sfm.colmap_worker FOLDER`. The process is separate because
pycolmap cannot be interrupted, writes to stderr, installs signal handlers, and bundles a
libpng that crashes OpenCV if pycolmap is imported first.

In:      images/*.bmp (in name order), job.json: focal_px and principal_point_px, (x, y) each; is_calibrated
Stdout:  progress, one "stage share_done" per line
Out:     model.npz (absent if nothing was reconstructed), see `write_model`
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pycolmap

SEED = 0
MAX_FEATURES = 2048
MIN_FEATURE_CONTRAST = 0.002  # with COLMAP's 0.0067 smooth walls get no points
PAIR_OVERLAP = 6  # each image is matched with this many neighbours, and with images 8, 16, 32, ... further on
OUTLIER_ERRORS_PX = (2.0, 1.5)  # observations with larger errors are dropped before each round of refinement
ROBUST_LOSS_PX = 0.5
MIN_POINT_ANGLE_DEG = 1.0
MIN_START_ANGLE_DEG = 6.0  # COLMAP's 16 suits photo collections; hand-held clips rarely reach it


def main(folder: Path) -> None:
    pycolmap.logging.minloglevel = pycolmap.logging.Level.ERROR.value
    pycolmap.set_random_seed(SEED)
    job = json.loads((folder / "job.json").read_text())
    match_images(folder, job)
    models = run_mapper(folder, is_calibrated=job["is_calibrated"])
    if models:
        polish(models[0], is_calibrated=job["is_calibrated"])
        with pycolmap.Database.open(folder / "database.db") as database:
            inlier_share = database.num_inlier_matches() / max(1, database.num_matches())
        write_model(folder / "model.npz", models[0], inlier_share)


def match_images(folder: Path, job: dict) -> None:
    """SIFT and sequential matching. Image ids are assigned first, so that threads cannot reorder them."""
    database, images = folder / "database.db", folder / "images"
    # A pinhole without distortion, since the user's frames are not undistorted.
    reader = pycolmap.ImageReaderOptions()
    reader.camera_model = "PINHOLE" if job["is_calibrated"] else "SIMPLE_PINHOLE"
    focal_px = job["focal_px"] if job["is_calibrated"] else job["focal_px"][:1]
    centre = [c + 0.5 for c in job["principal_point_px"]]  # COLMAP puts the centre of the first pixel at 0.5
    reader.camera_params = ",".join(map(str, [*focal_px, *centre]))
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.use_gpu = False
    extraction.num_threads = os.cpu_count() or 1
    extraction.sift.max_num_features = MAX_FEATURES
    extraction.sift.peak_threshold = MIN_FEATURE_CONTRAST
    matching = pycolmap.FeatureMatchingOptions()
    matching.use_gpu = False
    matching.num_threads = 1  # more threads can verify matches in another order, with other results
    pairing = pycolmap.SequentialPairingOptions()
    pairing.overlap = PAIR_OVERLAP
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = SEED

    announce("features", 0.0)
    with pycolmap.Database.open(database):
        pass
    mode = pycolmap.CameraMode.SINGLE
    pycolmap.import_images(database, images, mode, options=reader)
    pycolmap.extract_features(database, images, camera_mode=mode, reader_options=reader, extraction_options=extraction)
    announce("matching", 0.0)
    pycolmap.match_sequential(
        database, matching_options=matching, pairing_options=pairing, verification_options=verification
    )


def run_mapper(folder: Path, *, is_calibrated: bool) -> list[pycolmap.Reconstruction]:
    """Incremental mapping on one thread: the same images give the same model. Largest model first."""
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads = options.mapper.num_threads = 1
    options.random_seed = options.mapper.random_seed = options.triangulation.random_seed = SEED
    options.ba_min_num_residuals_for_cpu_multi_threading = np.iinfo(np.int32).max
    options.extract_colors = False
    options.min_model_size = 3
    options.mapper.init_min_tri_angle = MIN_START_ANGLE_DEG
    options.ba_refine_focal_length = options.mapper.abs_pose_refine_focal_length = not is_calibrated
    num_images = len(list((folder / "images").iterdir()))
    num_registered = 0

    def on_next_image() -> None:
        nonlocal num_registered
        num_registered += 1
        announce("mapping", min(1.0, num_registered / num_images))

    announce("mapping", 0.0)
    output = folder / "models"
    output.mkdir()
    models = pycolmap.incremental_mapping(
        folder / "database.db", folder / "images", output, options, next_image_callback=on_next_image
    )
    return sorted(models.values(), key=lambda model: (-model.num_reg_images(), -model.num_points3D()))


def polish(model: pycolmap.Reconstruction, *, is_calibrated: bool) -> None:
    """Robust bundle adjustment, in place, since moving things bias least squares, above all the focal length."""
    options = pycolmap.BundleAdjustmentOptions()
    options.refine_focal_length = not is_calibrated
    options.print_summary = False
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = ROBUST_LOSS_PX
    options.ceres.solver_options.num_threads = 1
    options.ceres.min_num_residuals_for_cpu_multi_threading = np.iinfo(np.int32).max
    announce("polishing", 0.0)
    for max_error_px in OUTLIER_ERRORS_PX:
        pycolmap.ObservationManager(model).filter_all_points3D(max_error_px, MIN_POINT_ANGLE_DEG)
        pycolmap.bundle_adjustment(model, options)
    pycolmap.ObservationManager(model).filter_all_points3D(max_error_px, MIN_POINT_ANGLE_DEG)
    model.update_point_3d_errors()


def write_model(path: Path, model: pycolmap.Reconstruction, inlier_share: float) -> None:
    """The model as arrays.

    image_idx [R], T_camera_world [R, 3, 4], focal_px [2], principal_point_px [2], xyz [N, 3],
    reprojection_error_px, inlier_share; and the observations, one per row: seen_in [M] (index into R),
    point_idx [M], xy_px [M, 2] (pixel centres at integers).
    """
    point_ids = sorted(model.point3D_ids())
    row_of_point = {point_id: i for i, point_id in enumerate(point_ids)}
    images = sorted((model.image(i) for i in model.reg_image_ids()), key=lambda image: image.name)
    observations = [
        (row, row_of_point[feature.point3D_id], *feature.xy)
        for row, image in enumerate(images)
        for feature in image.get_observation_points2D()
    ]
    table = np.array(observations, dtype=np.float64).reshape(-1, 4)  # none at all is a shape too
    camera = next(iter(model.cameras.values()))
    np.savez(
        path,
        image_idx=np.array([int(Path(image.name).stem) for image in images]),
        T_camera_world=np.stack([image.cam_from_world().matrix() for image in images]),
        focal_px=np.array([camera.focal_length_x, camera.focal_length_y]),
        principal_point_px=np.array([camera.principal_point_x, camera.principal_point_y]) - 0.5,
        xyz=np.array([model.point3D(i).xyz for i in point_ids]).reshape(-1, 3),
        seen_in=table[:, 0].astype(np.int64),
        point_idx=table[:, 1].astype(np.int64),
        xy_px=table[:, 2:] - 0.5,
        reprojection_error_px=model.compute_mean_reprojection_error(),
        inlier_share=inlier_share,
    )


def announce(stage: str, share_done: float) -> None:
    """Print progress for the parent process."""
    sys.stdout.write(f"{stage} {share_done:.3f}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
