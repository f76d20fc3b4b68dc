import shutil

import pytest

from inspatio_sim.generators import generator_by_name
from inspatio_sim.generators.star.compiled import num_compiled_graphs
from inspatio_sim.generators.star.generator import StarGenerator
from inspatio_sim.generators.star.warm_up import warm_up
from inspatio_sim.motion.camera import PoseDelta
from inspatio_sim.reconstruction import reconstruct
from inspatio_sim.scenes.demo import demo_clip
from inspatio_sim.world.world import World

SIZE_PX = (48, 80)


def test_a_warm_up_runs_every_kind_of_block_and_tells():
    generator = generator_by_name("star", random_weights=True, device="cpu", dtype="float32")
    assert isinstance(generator, StarGenerator)
    told = []
    result = warm_up(generator, SIZE_PX, progress=lambda what, share: told.append(share))
    assert told == sorted(told)
    assert told[-1] == 1
    assert 0 < result.last_block_s < result.seconds


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants g++ on a CPU")
def test_nothing_is_compiled_after_a_warm_up():
    reference = reconstruct(demo_clip(num_frames=45, size_px=SIZE_PX), method="rgbd")
    generator = generator_by_name("star", random_weights=True, device="cpu", dtype="float32", compile=True)
    assert isinstance(generator, StarGenerator)
    assert warm_up(generator, SIZE_PX).num_graphs > 0
    num_graphs = num_compiled_graphs()
    world = World(reference, generator=generator)
    world.reset()
    for _ in range(3):
        world.step(PoseDelta.from_twist([0, 0, 0.05], [0, 0.02, 0], 1.0))
    assert num_compiled_graphs() == num_graphs
