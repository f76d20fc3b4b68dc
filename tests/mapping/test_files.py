import numpy as np
import pytest
import yaml
from PIL import Image

from inspatio_sim.errors import InputError
from inspatio_sim.mapping import PlanningGrid, WorldMap
from inspatio_sim.mapping.files import read_npz, read_points
from inspatio_sim.mapping.map_server import read_grid, write_grid
from tests.mapping.synthetic import insert, look

CELLS = np.array([[0, 100, -1], [-1, 0, 100]], dtype=np.int8)
GRID = PlanningGrid(cells=CELLS, resolution_m=0.05, origin_m=(-1.5, 2.25))


@pytest.mark.parametrize("suffix", ["ply", "pcd"])
def test_points_survive_the_round_trip(tmp_path, suffix):
    world_map = WorldMap()
    insert(world_map, look(0), time_s=1.5)
    insert(world_map, look(1), time_s=2.5, source=0)
    getattr(world_map, f"write_{suffix}")(tmp_path / f"map.{suffix}")
    cloud, back = world_map.point_cloud(), read_points(tmp_path / f"map.{suffix}")
    assert len(back.position_m) == world_map.num_points > 1000
    assert set(cloud.source) == {1, 2}
    for name in ("position_m", "rgb_u8", "confidence", "last_seen_s", "source"):
        np.testing.assert_array_equal(getattr(back, name), getattr(cloud, name))
    assert [path.name for path in tmp_path.iterdir()] == [f"map.{suffix}"]


def test_an_empty_map_can_be_written(tmp_path):
    WorldMap().write_ply(tmp_path / "map.ply")
    WorldMap().write_pcd(tmp_path / "map.pcd")
    assert b"element vertex 0" in (tmp_path / "map.ply").read_bytes()
    with pytest.raises(InputError, match="no points in it"):
        read_points(tmp_path / "map.pcd")
    assert WorldMap().planning_grid().cells.tolist() == [[-1]]


def test_a_text_file_named_ply_is_refused(tmp_path):
    (tmp_path / "map.ply").write_text("no points here\n")
    with pytest.raises(InputError, match=r"map\.ply"):
        read_points(tmp_path / "map.ply")
    with pytest.raises(InputError, match="no such file"):
        read_points(tmp_path / "none.pcd")
    with pytest.raises(InputError, match=r"ends in \.ply or \.pcd"):
        read_points(tmp_path / "map.obj")


def test_npz_with_code_in_it_is_refused(tmp_path):
    np.savez(tmp_path / "evil.npz", counts=np.array([{"a": print}], dtype=object))
    with pytest.raises(InputError, match=r"evil\.npz"):
        read_npz(tmp_path / "evil.npz")
    (tmp_path / "text.npz").write_text("text")
    with pytest.raises(InputError, match=r"text\.npz"):
        WorldMap.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InputError, match=r"other\.npz: no number occupancy_voxel_m"):
        WorldMap.load(tmp_path / "other.npz")


def test_grid_round_trip_as_map_server_writes_it(tmp_path):
    GRID.write(tmp_path / "occupancy")
    pixels = np.array(Image.open(tmp_path / "occupancy.pgm"))
    np.testing.assert_array_equal(pixels, [[205, 254, 0], [254, 0, 205]])  # the last row first
    assert (tmp_path / "occupancy.pgm").read_bytes().startswith(b"P5")
    card = yaml.safe_load((tmp_path / "occupancy.yaml").read_text())
    assert card["image"] == "occupancy.pgm"
    assert card["resolution"] == 0.05
    assert card["origin"] == [-1.5, 2.25, 0.0]
    assert card["negate"] == 0
    back = read_grid(tmp_path / "occupancy.yaml")
    np.testing.assert_array_equal(back.cells, CELLS)
    assert (back.resolution_m, back.origin_m) == (GRID.resolution_m, GRID.origin_m)


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ("image: [", "not a readable map card"),
        ("just words", "want image, resolution"),
        ("!!python/object/apply:os.system ['true']", "not a readable map card"),
        ("{image: no.pgm, resolution: 0.05, origin: [0, 0, 0], negate: 0, occupied_thresh: 0.65, free_thresh: 0.2}",
         "no.pgm: not a readable picture"),
        ("{image: no.pgm, resolution: 0.05, origin: [0, 0, 1], negate: 0, occupied_thresh: 0.65, free_thresh: 0.2}",
         "origin has yaw"),
    ],
)  # fmt: skip
def test_bad_map_cards_are_refused(tmp_path, card, message):
    (tmp_path / "map.yaml").write_text(card)
    with pytest.raises(InputError, match=message):
        read_grid(tmp_path / "map.yaml")


def test_failed_writes_leave_the_old_file(tmp_path):
    write_grid(GRID, tmp_path / "a")
    before = (tmp_path / "a.pgm").read_bytes()
    (tmp_path / "blocked").write_text("a file, not a folder")
    with pytest.raises(InputError):
        write_grid(GRID, tmp_path / "blocked" / "b")
    assert (tmp_path / "a.pgm").read_bytes() == before
