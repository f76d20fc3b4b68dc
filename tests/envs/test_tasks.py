"""Rewards and measures against numbers worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from inspatio_envs.coverage import Coverage
from inspatio_envs.env import InspatioEnv
from inspatio_envs.episodes import Episode
from inspatio_envs.measures import Ground
from inspatio_envs.tasks import NavConfig, picture_from

from inspatio_sim.errors import InputError
from inspatio_sim.mapping.geodesic import geodesic_distance
from inspatio_sim.mapping.grid import ros_from_world
from inspatio_sim.motion.camera import Intrinsics, PoseDelta, inverse, pose_from
from tests.envs.conftest import make

FAST = {"speed_mps": 10, "turn_rate_radps": 6}
STOP, FORWARD, LEFT, TURN_LEFT = 0, 1, 3, 5


def level(x_m, z_m):
    return tuple(tuple(row) for row in pose_from(t_m=[x_m, 0, z_m]).tolist())


def ahead():
    """A straight walk of 0.6 m into the room, as the clip's first camera looks, from cell centre to cell centre."""
    return Episode(
        episode_id="ahead",
        T_world_start=level(0.05, 0.05),
        goal_m=(0.05, 0.0, 0.65),
        T_world_goal=level(0.05, 0.65),
        geodesic_m=0.6,
        difficulty="easy",
    )


def nav(**options) -> InspatioEnv:
    sizes = {} if options.get("action") else {"action_options": {"move_m": 0.2}}
    return make("PointNav", **sizes, **options).unwrapped


def test_a_straight_walk_to_the_goal():
    env = nav()
    _, info = env.reset(seed=0, options={"episode": ahead()})
    assert info["distance_to_goal_m"] == pytest.approx(0.6, abs=1e-6)
    rewards = []
    for action in (FORWARD, FORWARD, STOP):
        observation, reward, terminated, truncated, info = env.step(action)
        rewards.append(reward)
    assert terminated
    assert not truncated
    assert observation["goal"] == pytest.approx([0.2, 1, 0, 0], abs=1e-6)
    assert rewards == pytest.approx([0.19, 0.19, 2.49], abs=1e-6)  # 0.2 nearer - 0.01, success 2.5 - 0.01
    expected = {
        "success": 1,
        "spl": 1,  # 0.6 / max(0.6, 0.4)
        "soft_spl": 1 - 0.2 / 0.6,
        "distance_to_goal_m": 0.2,
        "path_length_m": 0.4,
        "num_collisions": 0,
    }
    for name, value in expected.items():
        assert info[name] == pytest.approx(value, abs=1e-6), name
        assert info[f"{name}_observed"] == pytest.approx(value, abs=1e-6), name


def test_a_detour_costs_spl():
    env = nav()
    env.reset(seed=0, options={"episode": ahead()})
    for action in (FORWARD, 2, FORWARD, 2, FORWARD, FORWARD, FORWARD, STOP):  # forward and back twice, then there
        *_, info = env.step(action)
    assert info["path_length_m"] == pytest.approx(1.4)
    assert info["spl"] == pytest.approx(0.6 / 1.4)
    assert info["soft_spl"] == pytest.approx(0.6 / 1.4, abs=1e-6)


def test_stopping_elsewhere_is_no_success():
    env = nav()
    env.reset(seed=0, options={"episode": ahead()})
    env.step(FORWARD)
    _, reward, terminated, _, info = env.step(STOP)
    assert terminated
    assert reward == pytest.approx(-0.01)
    assert (info["success"], info["spl"]) == (0, 0)
    assert info["soft_spl"] == pytest.approx(1 / 3, abs=1e-6)


def test_without_a_stop_being_there_is_enough():
    for env in (nav(task_options={"needs_stop": False}, sparse=True), nav(action="unicycle", sparse=True)):
        env.reset(seed=0, options={"episode": ahead()})
        action = FORWARD if env.config.action == "discrete" else np.array([1.0, 0.0])
        rewards, terminated = [], False
        while not terminated and len(rewards) < 10:
            _, reward, terminated, _, info = env.step(action)
            rewards.append(reward)
        assert rewards == [0.0] * (len(rewards) - 1) + [1.0]
        assert info["distance_to_goal_m"] <= 0.3
        assert info["success"] == 1


def test_frames_of_a_skipped_block_count():
    env = nav(frame_skip=4)
    env.reset(seed=0, options={"episode": ahead()})
    *_, info = env.step(LEFT)
    assert info["path_length_m"] == pytest.approx(0.2)


def test_collisions_count_and_cost():
    env = nav(task_options={"collision_reward": -0.5})
    env.reset(seed=0, options={"episode": ahead()})
    num_collisions, costs = 0, []
    for _ in range(30):
        before = env.task.distance_m
        _, reward, _, _, info = env.step(FORWARD)
        num_collisions += info["has_collided"]
        costs.append(reward - (before - info["distance_to_goal_m"]))
        assert costs[-1] == pytest.approx(-0.51 if info["has_collided"] else -0.01)
    assert num_collisions > 0
    assert info["num_collisions"] == num_collisions
    assert info["path_length_m"] < 30 * 0.2


def test_off_the_clips_ground_only_the_rest_counts_as_observed():
    env = nav(world_options={"collisions": "off"})
    env.reset(seed=0, options={"episode": ahead()})
    for _ in range(20):  # back through the unseen space behind the first camera, and into nowhere
        *_, info = env.step(2)
    assert info["path_length_m"] == pytest.approx(4.0)
    assert info["path_length_m_observed"] < 2.0
    assert info["distance_to_goal_m"] > 4
    assert info["distance_to_goal_m_observed"] < info["distance_to_goal_m"]
    for _ in range(22):
        env.step(FORWARD)
    *_, terminated, _, info = env.step(STOP)
    assert terminated
    assert info["success"] == 1
    assert info["success_observed"] == info["spl_observed"] == info["soft_spl_observed"] == 0


def test_coverage_is_the_area_of_the_squares_hit():
    coverage = Coverage()
    intrinsics = Intrinsics(fx_px=10, fy_px=10, cx_px=2, cy_px=0, width_px=5, height_px=1)
    depth_m = np.array([[1.05, 1.05, 1.05, 1.05, 0.0]], np.float32)
    known = np.array([[2, 2, 0, 2, 2]], np.uint8)
    pose = pose_from(t_m=[0.05, 0, 0])  # pixels 0, 2 look at x = -0.16 and 0.05; 4 knows no depth
    coverage.add(depth_m, known, intrinsics, pose)
    assert coverage.area_m2 == pytest.approx(0.02)
    assert coverage.observed_m2 == pytest.approx(0.01)
    coverage.add(depth_m, known, intrinsics, pose)
    assert coverage.area_m2 == pytest.approx(0.02)
    coverage.add(depth_m, known, intrinsics, pose_from(t_m=[1000, 0, 0]))
    assert coverage.area_m2 == pytest.approx(0.02)


def test_ground_is_explored_where_the_camera_came_near():
    env = make("Explore").unwrapped
    env.reset(seed=0)
    sampler = env.place.sampler(None, 0.15)
    centre = np.argwhere(sampler.is_open)[sampler.is_open.sum() // 2]
    z_m, left_m = sampler.grid.centre_of(centre)
    ground = Ground(sampler, 0.25)
    ground.visit(sampler, np.array([-left_m, 5.0, z_m]), is_observed=False)  # heights do not count
    rows, columns = np.nonzero(ground.is_explored[0])
    away_m = sampler.grid.resolution_m * np.hypot(rows - centre[0], columns - centre[1])
    assert away_m.max() <= 0.25
    in_reach = np.hypot(*(np.indices(sampler.is_open.shape) - centre[:, None, None])) <= 2.5
    assert ground.is_explored[0].sum() == (in_reach & sampler.is_open).sum()  # cells of 0.1 m
    assert ground.explored_share == (pytest.approx(len(rows) / sampler.is_open.sum()), 0)
    ground.visit(sampler, np.array([100.0, 0, 0]), is_observed=True)
    assert ground.is_explored[0].sum() == len(rows)
    ground.visit(sampler, np.array([-left_m, 0, z_m]), is_observed=True)
    assert ground.explored_share[0] == ground.explored_share[1]


def test_explore_pays_for_new_ground():
    env = make("Explore").unwrapped
    _, info = env.reset(seed=0, options={"episode": ahead()})
    all_m2 = env.place.sampler(None, 0.15).is_open.sum() * env.place.grid.resolution_m**2
    rewards = []
    for action in (TURN_LEFT, 6, FORWARD, 2):  # left and right again, forward and back again
        before = info["explored_share"]
        _, reward, terminated, _, info = env.step(action)
        assert reward == pytest.approx((info["explored_share"] - before) * all_m2 - 0.01)
        assert not terminated
        rewards.append(reward)
    assert [reward > 0 for reward in rewards] == [False, False, True, False]
    assert info["explored_share"] == info["explored_share_observed"]
    env = make("Explore", task_options={"success_share": 0.01}, sparse=True).unwrapped
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(STOP)
    assert (reward, terminated, info["success"]) == (1.0, True, 1.0)


def test_explore_starts_in_many_places():
    env = make("Explore").unwrapped
    starts = {env.reset(seed=seed)[0]["pose"].tobytes() for seed in range(4)}
    assert len(starts) == 4
    observation, info = env.reset(seed=0, options={"pose": np.eye(4)})
    assert not observation["pose"][:3].any()
    assert "episode_id" not in info


def explore(env, choose, seed):
    """What 100 steps make of it."""
    env.reset(seed=seed)
    is_over = False
    while not is_over:
        *_, terminated, truncated, info = env.step(choose(env))
        is_over = terminated or truncated
    return info


def to_the_nearest_new_ground(env):
    """The move of 0.25 m that leads there on the shortest way."""
    sampler, T = env.place.sampler(None, 0.15), env.world.T_world_camera
    open_cells, cell = np.argwhere(sampler.is_open), sampler.grid.cell_of(ros_from_world(T[:3, 3]))
    row, column = open_cells[np.linalg.norm(open_cells - cell, axis=1).argmin()]  # where it slid along a wall
    way_m = geodesic_distance(sampler.is_open, (int(row), int(column)), sampler.grid.resolution_m)
    row, column = np.unravel_index(np.where(env.task.ground.is_explored[0], np.inf, way_m).argmin(), way_m.shape)
    z_m, left_m = sampler.grid.centre_of([row, column])
    moves = {FORWARD: [0, 0, 0.25], 2: [0, 0, -0.25], LEFT: [-0.25, 0, 0], 4: [0.25, 0, 0]}
    goal_m = [-left_m, 0, z_m]
    return min(moves, key=lambda action: sampler.geodesic_m(T[:3, :3] @ moves[action] + T[:3, 3], goal_m))


def test_exploring_takes_a_plan():
    env = make("Explore", max_steps=100, observations=["pose"]).unwrapped
    env.action_space.seed(0)
    by_chance = [explore(env, lambda env: env.action_space.sample(), seed) for seed in range(5)]
    assert sum(info["success"] for info in by_chance) == 0
    assert max(info["explored_share"] for info in by_chance) < 0.6
    assert all(explore(env, to_the_nearest_new_ground, seed)["success"] == 1 for seed in range(3))


def six_dof_to(env, T_target):
    """The action that brings the camera to a pose in one step."""
    twist = PoseDelta.from_matrix(inverse(env.world.T_world_camera) @ T_target).twist * env.world.reference.fps
    return np.concatenate([twist[:3], twist[3:] / 6]) / [10, 10, 10, 1, 1, 1]


def test_follow_is_perfect_along_the_clip_itself():
    env = make("Follow", max_frames=6, action_options=FAST).unwrapped
    observation, _ = env.reset(seed=0)
    poses = env.world.reference.T_world_camera
    for i in range(1, 6):
        assert observation["goal"][0] == pytest.approx(np.hypot(*(poses[i] - poses[i - 1])[[0, 2], 3]), abs=1e-6)
        observation, reward, terminated, _, info = env.step(six_dof_to(env, poses[i]))
        assert reward == pytest.approx(1, abs=1e-6)
        assert terminated == (i == 5)
    assert info["success"] == info["success_observed"] == 1
    assert info["position_error_m"] == pytest.approx(0, abs=1e-6)
    assert info["psnr_db"] > 40


def test_follow_standing_still():
    env = make("Follow", max_frames=6, sparse=True, task_options={"success_distance_m": 1e-6}).unwrapped
    env.reset(seed=0)
    positions = env.world.reference.T_world_camera[:, :3, 3]
    for i in range(1, 6):
        _, reward, terminated, _, info = env.step(np.zeros(6))
        assert reward == 0
        errors_m = np.linalg.norm(positions[1 : i + 1] - positions[0], axis=1)
        assert info["position_error_m"] == pytest.approx(errors_m.mean())
    assert terminated
    assert info["success"] == 0


def test_follow_held_out_views():
    path = {"path": "held-out"}
    env = make("Follow", max_frames=8, task_options=path, observations=["goal_image"], action_options=FAST).unwrapped
    env.reset(seed=0)
    whole = make("Follow", max_frames=8).unwrapped
    whole.reset(seed=0)
    every = whole.world.reference
    assert np.array_equal(env.world.reference.frames_u8, every.frames_u8[::2])
    assert env.world.reference.fps == every.fps / 2
    terminated, num_steps = False, 0
    while not terminated:
        num_steps += 1
        observation, reward, terminated, _, info = env.step(six_dof_to(env, every.T_world_camera[2 * num_steps + 1]))
        assert reward == pytest.approx(1, abs=1e-6)
        assert 15 < info["psnr_db"] < 60  # near the frame held out, which the world never had
    assert num_steps == 3  # to frames 3, 5 and 7
    assert np.array_equal(observation["goal_image"], every.frames_u8[7])


def test_goal_image_is_the_view_at_the_goal():
    env = make("ImageNav").unwrapped
    env.reset(seed=0)
    frame_idx = 20
    reference = env.world.reference
    picture = picture_from(env.place, reference.T_world_camera[frame_idx])
    assert np.array_equal(picture, reference.frames_u8[frame_idx])
    observation, _ = env.reset(seed=1)
    assert env.episode is not None
    assert np.array_equal(observation["goal_image"], picture_from(env.place, np.array(env.episode.T_world_goal)))


def test_configs_are_checked():
    with pytest.raises(InputError, match="success_distance_m=0"):
        NavConfig(success_distance_m=0)
    with pytest.raises(InputError, match="slack_reward=nan"):
        NavConfig(slack_reward=float("nan"))
    with pytest.raises(InputError, match="needs_stop='yes': want True, False or None"):
        make("PointNav", task_options={"needs_stop": "yes"})
    with pytest.raises(InputError, match="path='away'"):
        make("Follow", task_options={"path": "away"})
    with pytest.raises(InputError, match="success_share=0"):
        make("Explore", task_options={"success_share": 0})
    with pytest.raises(InputError, match="success_share=1.5: want more than 0, at most 1"):
        make("Explore", task_options={"success_share": 1.5})
    with pytest.raises(InputError, match="near_m=-1"):
        make("Explore", task_options={"near_m": -1})
    with pytest.raises(InputError, match="at least 4"):
        make("Follow", task_options={"path": "held-out"}, max_frames=3).reset()


def test_a_start_at_the_goal_divides_by_nothing():
    env = nav()
    episode = replace(ahead(), T_world_start=ahead().T_world_goal, geodesic_m=0.0)
    env.reset(seed=0, options={"episode": episode})
    *_, info = env.step(STOP)
    assert info["success"] == info["spl"] == 1
