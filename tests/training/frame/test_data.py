from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from inspatio_sim.codecs import TinyAutoencoder, TinyCodec, TinyConfig
from inspatio_sim.codecs.image import SingleFrames
from inspatio_sim.errors import InputError
from inspatio_sim.training.data.procedural import HELD_OUT_SEED
from inspatio_sim.training.frame.augment import NONE, FrameAugment, faulty_depth, holes, soft
from inspatio_sim.training.frame.data import FrameDataConfig, FrameSamples, held_out, mask_channel
from inspatio_sim.training.frame.films import Films, Joined
from inspatio_sim.training.frame.stages import Shown

H, W = 48, 80
CONFIG = FrameDataConfig(clips_per_style=3, frames_per_clip=3, size_px=(H, W), workers=0)
MANY = range(60)


@pytest.fixture(scope="module")
def codec():
    torch.manual_seed(0)
    network = TinyAutoencoder(TinyConfig(encoder_width=4, decoder_widths=(8, 4, 4, 4), time_alignment="causal"))
    return SingleFrames(TinyCodec(network.eval().requires_grad_(False)), 1.5)


@pytest.fixture(scope="module")
def films():
    return Films(CONFIG)


@pytest.fixture(scope="module")
def make(films, codec):
    def make(augment=NONE, **settings):
        return FrameSamples(replace(CONFIG, augment=augment, **settings), codec, films=films)

    return make


def off_by(views, pictures_u8):
    """Median error of the known pixels, in levels."""
    error = np.abs(views.target_u8.astype(int) - pictures_u8)
    return np.median(error[views.is_known])


def test_a_batch_has_what_the_network_takes(make):
    batch = make(FrameAugment())(list(range(8)))
    shapes = {name: tuple(tensor.shape) for name, tensor in vars(batch).items()}
    assert shapes == {"target": (8, 16, 6, 10), "anchors": (8, 17, 6, 10), "reference": (8, 17, 6, 10)}
    assert {tensor.dtype for tensor in vars(batch).values()} == {torch.float32}
    known = batch.anchors[:, -1]
    assert -1 <= known.min() < known.max() <= 1
    assert set(batch.reference[:, -1].unique().tolist()) <= {-1.0, 1.0}


def test_a_number_is_a_sample_whatever_the_batch(make, codec):
    whole = make(FrameAugment())([0, 1, 2, 3])
    again = FrameSamples(CONFIG, codec)([3, 1])
    for name in vars(whole):
        assert torch.equal(getattr(again, name), getattr(whole, name)[[3, 1]])


def assert_same(some: Films, films: Films) -> None:
    """Clip by clip, to the bit."""
    for i in range(len(some)):
        for name in ("rgb_u8", "depth_m", "T_world_camera"):
            assert np.array_equal(getattr(some, name)[i], getattr(films, name)[i])
        assert some.intrinsics[i] == films.intrinsics[i]


def test_clips_on_the_disk_are_filmed_once(films, tmp_path, monkeypatch):
    monkeypatch.setattr("inspatio_sim.training.frame.films.PART_BYTES", 2.1 * films.rgb_u8[0].size / 3 * 5)
    told = []
    assert_same(Films(replace(CONFIG, clips_per_style=2), folder=tmp_path), films)
    parts = sorted(tmp_path.glob("*/*"))
    assert [part.name for part in parts] == ["00000000-00000002", "00000002-00000004"]
    times = [part.stat().st_mtime_ns for part in parts]
    more = Films(CONFIG, lambda what, share: told.append(share), folder=tmp_path)
    assert_same(more, films)
    assert told == [pytest.approx(5 / 6), 1.0]
    assert [part.stat().st_mtime_ns for part in parts] == times
    assert len(list(tmp_path.glob("*/*"))) == 3
    Films(replace(CONFIG, fps=1.0, clips_per_style=1), folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # another setting, another folder


@pytest.mark.slow
def test_workers_film_the_same(films):
    assert_same(Films(replace(CONFIG, workers=2)), films)


def test_filming_tells_how_far_it_is(films):
    told = []
    Films(replace(CONFIG, clips_per_style=1), lambda what, share: told.append((what, share)))
    assert told == [("filming clips", 0.5), ("filming clips", 1.0)]


def test_clips_are_filmed_in_turn_and_stay_when_more_are_asked_for(films):
    fewer = Films(replace(CONFIG, clips_per_style=1))
    assert len(films) == 6
    assert_same(fewer, films)
    clips = [films.rgb_u8[i] for i in range(len(films))]
    still = [np.abs(clip.astype(int) - clip[:, ::-1]).mean() for clip in clips]
    assert len(set(still)) == len(films)  # six places


def test_anchors_lie_on_the_target(make, films):
    faultless = make(further=0.0)
    for sample in MANY:
        views = faultless.views(sample)
        assert views.is_known.mean() > 0.2
        assert off_by(views, views.anchors_u8) <= 4
        assert (views.anchors_u8[~views.is_known] == 0).all()
    moved = [faultless.views(sample) for sample in MANY]
    unwarped = np.mean([off_by(views, np.roll(views.anchors_u8, 3, axis=1)) for views in moved])
    warped = np.mean([off_by(views, views.anchors_u8) for views in moved])
    assert warped < 0.3 * unwarped


def test_further_frames_fill_what_the_first_leaves_open(make):
    alone, filled = make(further=0.0), make(further=1.0)
    gained = 0.0
    for sample in MANY:
        few, more = alone.views(sample), filled.views(sample)
        assert np.array_equal(few.target_u8, more.target_u8)
        assert (more.is_known | ~few.is_known).all()
        assert np.array_equal(few.anchors_u8[few.is_known], more.anchors_u8[few.is_known])
        gained += (more.is_known & ~few.is_known).mean()
        news = more.is_known & ~few.is_known
        assert not news.any() or more.anchors_u8[news].any()
    assert gained / len(MANY) > 0.01


def test_faults_leave_the_target_and_the_choice_of_views_alone(make):
    plain = make()
    faulty = make(replace(FrameAugment(), mirrored=0, recoloured=0, soft_reference=0, no_reference=0))
    changed = 0
    for sample in MANY:
        a, b = plain.views(sample), faulty.views(sample)
        assert np.array_equal(a.target_u8, b.target_u8)
        assert np.array_equal(a.reference_u8, b.reference_u8)
        changed += not np.array_equal(a.anchors_u8, b.anchors_u8)
    assert changed > 0.9 * len(MANY)


def test_nothing_known_and_nothing_shown(make, codec):
    samples = list(range(4))
    plain, bare = make()(samples), make(replace(NONE, unknown_view=1, no_reference=1))(samples)
    black = codec.encode(torch.full((1, 3, H, W), -1.0)).expand(4, -1, -1, -1)
    for part in (bare.anchors, bare.reference):
        assert torch.allclose(part[:, :-1], black, atol=1e-5)
        assert (part[:, -1] == -1).all()
    assert torch.equal(bare.target, plain.target)
    assert (plain.reference[:, -1] == 1).all()


def test_all_three_are_mirrored_alike(make):
    for sample in range(6):
        a, b = make().views(sample), make(replace(NONE, mirrored=1)).views(sample)
        for name in ("target_u8", "anchors_u8", "reference_u8", "is_known"):
            assert np.array_equal(getattr(a, name)[:, ::-1], getattr(b, name))


def test_all_three_are_recoloured_alike_and_unknown_stays_black(make):
    for sample in MANY:
        views = make(replace(NONE, recoloured=1), further=0.0).views(sample)
        assert (views.anchors_u8[~views.is_known] == 0).all()
        assert off_by(views, views.anchors_u8) <= 8
    a, b = make().views(0), make(replace(NONE, recoloured=1)).views(0)
    assert not np.array_equal(a.target_u8, b.target_u8)
    assert np.array_equal(a.is_known, b.is_known)


def test_holes_take_and_never_give(make):
    plain, holed = make(further=0.0), make(replace(NONE, holes=1), further=0.0)
    lost = []
    for sample in MANY:
        a, b = plain.views(sample), holed.views(sample)
        assert not (b.is_known & ~a.is_known).any()
        assert np.array_equal(a.anchors_u8[b.is_known], b.anchors_u8[b.is_known])
        lost.append(1 - b.is_known.sum() / a.is_known.sum())
    assert 0.15 < np.mean(lost) < 0.6


def test_the_sky_is_known_or_not(make, films):
    assert any((films.depth_m[i] == 0).any() for i in range(len(films)))
    unknown, known = (make(replace(NONE, known_sky=share), further=0.0) for share in (0, 1))
    shares = [(unknown.views(i).is_known.mean(), known.views(i).is_known.mean()) for i in MANY]
    assert all(few <= more for few, more in shares)
    assert max(more - few for few, more in shares) > 0.05


def test_the_reference_is_another_frame_that_mostly_sees_the_target(make, films):
    samples = make()
    pictures = np.concatenate([films.rgb_u8[i].reshape(-1, H, W, 3) for i in range(len(films))])
    shares = []
    for sample in MANY:
        views = samples.views(sample)
        target, reference = (
            next(i for i, picture in enumerate(pictures) if np.array_equal(picture, shown))
            for shown in (views.target_u8, views.reference_u8)
        )
        per_clip = len(films.frames)
        assert target != reference
        assert target // per_clip == reference // per_clip
        frames = films.frames
        shares += films.shares_seen(
            target // per_clip, frames[target % per_clip], [frames[reference % per_clip]]
        ).tolist()
    assert 0.5 < np.mean(shares) < 1


def test_a_frame_sees_itself_and_nothing_behind_it(films):
    for clip in range(len(films)):
        shares = films.shares_seen(clip, (0, 0), films.frames)
        assert shares[0] == (films.depth_m[clip, 0, 0] > 0).any()
        assert ((shares >= 0) & (shares <= 1)).all()
    turned = copy(films)
    poses = np.stack([films.T_world_camera[clip] for clip in range(len(films))])
    poses[:, 1, 0] = poses[:, 0, 0] @ np.diag([-1.0, 1, -1, 1])
    turned.T_world_camera = Joined([poses])
    for clip in range(len(films)):
        assert turned.shares_seen(clip, (0, 0), [(1, 0)])[0] == 0


def test_one_frame_a_clip_is_enough(codec):
    samples = FrameSamples(replace(CONFIG, clips_per_style=1, frames_per_clip=1), codec)
    batch = samples(list(range(6)))
    assert batch.target.shape == (6, 16, 6, 10)


def test_held_out_places_are_others_without_faults():
    config = held_out(CONFIG, clips_per_style=1)
    assert (config.seed, config.augment, config.num_clips) == (HELD_OUT_SEED, NONE, 2)
    assert config.size_px == CONFIG.size_px


def test_the_mask_is_the_known_share():
    is_known = np.zeros((8, 16), np.bool_)
    is_known[:, :8] = True
    is_known[:4, 8:] = True
    is_known[0, 0] = False
    assert mask_channel(is_known, 8).tolist() == [[[pytest.approx(63 / 32 - 1), 0.0]]]


def test_a_sheet_shows_rows(make, codec):
    batch = make()([0, 1])
    sheet = Shown(codec=codec, batch=batch).sheet(batch.target, has_conditions=True)
    assert sheet.shape == (2 * H, 4 * W, 3)
    assert sheet.dtype == np.uint8
    assert np.array_equal(sheet[:, :W], sheet[:, 3 * W :])
    lower = codec.decode(batch.target[1:])[0].clamp(-1, 1)
    assert np.allclose(sheet[H:, :W] / 127.5 - 1, lower.permute(1, 2, 0), atol=0.01)


def test_faulty_depth_is_off_as_much_as_it_should_be():
    depth_m = np.full((96, 160), 2.0, np.float32)
    rng = np.random.default_rng(0)
    dropped = faulty_depth(depth_m, replace(NONE, dropped_points=0.25, depth_noise=0.1), rng)
    assert (dropped > 0).mean() == pytest.approx(0.75, abs=0.02)
    assert np.log(dropped[dropped > 0] / 2).std() == pytest.approx(0.1, rel=0.05)
    scales = [faulty_depth(depth_m, replace(NONE, depth_scale=0.1), rng) for _ in range(50)]
    assert all(np.ptp(scaled) == 0 for scaled in scales)
    assert np.log([scaled[0, 0] / 2 for scaled in scales]).std() == pytest.approx(0.1, rel=0.35)
    bent = np.log(faulty_depth(depth_m, replace(NONE, depth_bend=0.1), rng) / 2)
    assert 0.03 < bent.std() < 0.2
    assert np.abs(np.diff(bent, axis=1)).max() < 0.03  # slowly
    assert np.array_equal(faulty_depth(depth_m, NONE, rng), depth_m)


def test_soft_pictures_are_softer_and_alike():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (H, W, 3), dtype=np.uint8)
    for seed in range(20):
        softened = soft(picture, np.random.default_rng(seed))
        assert softened.shape == picture.shape
        assert softened.mean() == pytest.approx(picture.mean(), rel=0.06)
        assert softened.std() < 1.05 * picture.std()
        assert not np.array_equal(softened, picture)


def test_holes_are_borders_or_blobs():
    masks = [holes((H, W), np.random.default_rng(seed)) for seed in range(100)]
    shares = [mask.mean() for mask in masks]
    assert 0.15 < np.mean(shares) < 0.5
    assert max(shares) < 0.95
    is_whole_side = [mask.all(axis=0).any() or mask.all(axis=1).any() for mask in masks]
    assert 0.3 < np.mean(is_whole_side) < 0.8


def test_what_cannot_be_is_refused(codec):
    with pytest.raises(InputError, match=r"holes=1\.5: want 0 to 1"):
        FrameAugment(holes=1.5)
    with pytest.raises(InputError, match="further=-1: want 0 to 1"):
        replace(CONFIG, further=-1)
    with pytest.raises(InputError, match="clips_per_style=0: want at least 1"):
        replace(CONFIG, clips_per_style=0)
    with pytest.raises(InputError, match="fps=0: want a positive number"):
        replace(CONFIG, fps=0)
    with pytest.raises(InputError, match=r"size_px=\(50, 80\): want multiples of 8"):
        FrameSamples(replace(CONFIG, size_px=(50, 80)), codec)
