"""The small video model: its clips, its training that can be stopped, tuning, longer clips, sampling and measures."""

import base64
import io
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudchamber.attention import Grid, Schedule, SparseAttention, TileLayout, convert, revert
from cloudchamber.attention.svg2 import KMeansLayout, svg2
from cloudchamber.attention.tiny import (
    DiTConfig,
    LoRALinear,
    MovingShapes,
    Recipe,
    Rotary,
    Stage,
    TinyVideoDiT,
    Training,
    Tuning,
    add_lora,
    batch_of,
    extend,
    fold_lora,
    gradient_error,
    grid_of,
    keep,
    load,
    lora_deltas,
    psnr,
    recorded,
    sample,
    split_ranks,
    ssim,
    train,
    training,
    tune,
    unscaled,
    validation_loss,
)  # fmt: skip
from cloudchamber.attention.tiny.dit import rotated
from cloudchamber.attention.tiny.figures import curves, filmstrips, png
from cloudchamber.attention.vsa import CoarseTopK, TileSelector, vsa
from cloudchamber.core.errors import InputError

SMALL = DiTConfig(width=24, layers=2)
CLIP = MovingShapes(4, 16)


def _model(seed=0):
    torch.manual_seed(seed)
    model = TinyVideoDiT(SMALL)
    for parameter in model.parameters():  # adaLN-zero starts as the identity, which would hide what attention does
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def _recipe(**changes):
    return Recipe(**{"config": SMALL, "stages": (Stage(2, 16, 2, 4), Stage(4, 16, 2, 3)), **changes})


def test_a_clip_is_named_by_its_seed():
    one, other = (CLIP.pixels(3, np.random.default_rng(seed)) for seed in (0, 0))
    assert np.array_equal(one, other)
    assert one.dtype == np.float32
    assert not np.array_equal(one, CLIP.pixels(3, np.random.default_rng(1)))


@given(st.integers(1, 40), st.floats(0, 30), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_shapes_stay_inside_whatever_their_speed(frames, speed, seed):
    pixels = MovingShapes(frames, 24, speed=speed).pixels(2, np.random.default_rng(seed))
    assert pixels.min() == 0
    assert pixels.max() <= 1
    lit = pixels.reshape(2, frames, -1).sum(axis=2)
    assert (lit >= 0.4 * 3.14 * 9 * 0.9).all()  # at least the smallest, dimmest disc is seen whole in every frame


def test_crossing_shapes_are_hidden_in_the_middle_half():
    moving = MovingShapes(8, 24, speed=0).pixels(1, np.random.default_rng(0))
    cross = MovingShapes(8, 24, "cross", speed=0).pixels(1, np.random.default_rng(0))
    assert np.array_equal(cross[:, [0, 1, 6, 7]], moving[:, [0, 1, 6, 7]])
    assert not np.allclose(cross[:, 2:6], moving[:, 2:6])


def test_pixels_come_back_from_clips():
    rng = np.random.default_rng
    assert np.allclose(unscaled(CLIP.clips(2, rng(0))), CLIP.pixels(2, rng(0)), atol=1e-6)


@pytest.mark.parametrize("bad", [{"frames": 0}, {"size": 14}, {"radius": (5.0, 3.0)}])
def test_clips_that_cannot_be_are_refused(bad):
    with pytest.raises(InputError, match="clip needs"):
        MovingShapes(**{"frames": 4, "size": 16, **bad})


def test_patches_must_fill_a_clip():
    assert grid_of(4, 16, (2, 2, 2)) == Grid(2, 8, 8)
    with pytest.raises(InputError, match="do not fill"):
        grid_of(5, 16, (2, 2, 2))


def test_heads_need_pairs_for_three_axes():
    with pytest.raises(InputError, match="multiple of 6"):
        DiTConfig(width=20)


def test_positions_are_relative():
    rotary, x = Rotary(12), torch.randn(2, 12)
    cos, sin = rotary.angles(Grid(6, 5, 4))
    place = {at: i for i, at in enumerate(map(tuple, Grid(6, 5, 4).positions().tolist()))}

    def score(a, b):
        turned = [rotated(x[i], cos[place[at]], sin[place[at]]) for i, at in enumerate((a, b))]
        return float(turned[0] @ turned[1])

    assert score((0, 1, 2), (3, 3, 3)) == pytest.approx(score((2, 2, 1), (5, 4, 2)), abs=1e-5)


def test_interpolated_positions_are_the_trained_ones_between():
    plain, squeezed = (Rotary(12, *more).angles(Grid(n, 1, 1))[0] for n, more in ((4, ()), (8, (4, "interpolate"))))
    assert torch.allclose(squeezed[::2], plain)
    assert not torch.allclose(Rotary(12, 4, "ntk").angles(Grid(8, 1, 1))[0][::2], plain)


def test_stretched_frequencies_keep_the_fastest_and_squeeze_the_slowest():
    turns = [Rotary(24, *more).angles(Grid(8, 1, 1))[1].asin()[1] for more in ((), (4, "ntk"))]
    assert torch.isclose(turns[1][0], turns[0][0])
    assert torch.isclose(turns[1][3], turns[0][3] / 2, rtol=1e-4)


def test_a_batch_mixes_clips_and_noise_by_time():
    batch = batch_of(CLIP, 8, 1, 2, 3)
    assert np.array_equal(np.sort((batch.t.numpy() * 8).astype(int)), np.arange(8))  # one in each eighth
    at = batch.t[:, None, None, None]
    assert torch.allclose(batch.mixed - at * batch.velocity, batch.clips, atol=1e-6)


def test_training_learns_and_is_named_by_its_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    recipe = _recipe(stages=(Stage(2, 16, 4, 24),))
    made = train(recipe)
    losses = torch.load(recipe.folder() / "model.pt", weights_only=True)["losses"]
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])
    assert list(recipe.folder().iterdir()) == [recipe.folder() / "model.pt"]
    again = train(recipe, progress=lambda _: pytest.fail("trained again"))
    assert all(torch.equal(a, b) for a, b in zip(made.parameters(), again.parameters(), strict=True))
    assert recipe.hash != _recipe(seed=1).hash


@pytest.mark.parametrize("stop", [2, 4, 6])
def test_a_training_that_was_stopped_gives_the_same_model(tmp_path, monkeypatch, stop):
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    whole = Training(_recipe(), tmp_path / "whole").run()

    class Stopped(Exception): ...

    def halt(_):
        if first.step == stop:
            raise Stopped

    first = Training(_recipe(), tmp_path / "parts")
    with pytest.raises(Stopped):
        first.run(halt)
    second = Training(_recipe(), tmp_path / "parts")
    assert second.step == stop
    parts = second.run()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))
    assert len(second.losses) == 7


def test_a_full_disk_leaves_the_state_before(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "SAVE_EVERY", 2)
    run = Training(_recipe(), tmp_path)
    real, count = torch.save, []

    def save(state, file):
        count.append(1)
        if len(count) == 2:
            file.write(b"half")
            raise OSError(28, "No space left on device")
        real(state, file)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(OSError, match="No space"):
        run.run()
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]
    assert Training(_recipe(), tmp_path).step == 2


def test_a_model_is_read_as_it_was_written(tmp_path):
    model = extend(_model(), 2, positions="ntk")
    fold_lora(model)
    keep(model, tmp_path / "m.pt")
    read = load(tmp_path / "m.pt")
    x, t = torch.randn(1, 4, 16, 16), torch.tensor([0.5])
    assert torch.equal(read(x, t), model(x, t))


def test_weights_of_a_correction_are_not_dropped_by_a_dense_model(tmp_path):
    model = _model()
    convert(model, lambda: vsa(24, 2, 12, sparsity=0.5), "blocks.*.attn")
    keep(model, tmp_path / "m.pt")
    with pytest.raises(InputError, match="coarse_gate"):
        load(tmp_path / "m.pt")


@pytest.mark.parametrize("content", [b"", b"not a model", None])
def test_other_files_are_no_models(tmp_path, content):
    if content is not None:
        (tmp_path / "m.pt").write_bytes(content)
    with pytest.raises(InputError, match="no dense video model"):
        load(tmp_path / "m.pt")


def test_all_tiles_give_the_dense_model():
    model, x, t = _model(), torch.randn(2, 4, 16, 16), torch.tensor([0.2, 0.9])
    dense = model(x, t)
    convert(model, lambda: SparseAttention(TileSelector(CoarseTopK()), layout=TileLayout(), density=1.0), "blocks.*.attn")
    assert torch.allclose(model(x, t), dense, atol=1e-5)
    assert revert(model) == 2
    assert torch.equal(model(x, t), dense)


def test_density_moves_the_operations_of_attention_only():
    model = TinyVideoDiT(SMALL)
    whole, half, none = (model.flops(512, density) for density in (1.0, 0.5, 0.0))
    assert whole - half == pytest.approx(half - none)
    assert whole - none == 4 * 2 * 512**2 * 24


def _sparse(model):
    return convert(model, lambda: vsa(24, 2, 12, sparsity=0.5), "blocks.*.attn")


@pytest.mark.parametrize("objective", ["teacher", "velocity", "layers"])
def test_every_objective_falls(objective):
    teacher, model = _model(1), _model()
    _sparse(model)
    losses = tune(model, CLIP, Tuning(steps=12, batch=4, objective=objective, lr=1e-3), teacher=teacher)
    assert np.mean(losses[-4:]) < np.mean(losses[:4])


def test_only_the_correction_is_trained_if_asked():
    model = _model()
    _sparse(model)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    tune(model, CLIP, Tuning(steps=3, trains="correction"), teacher=_model())
    changed = {name for name, each in model.state_dict().items() if not torch.equal(each, before[name])}
    assert changed
    assert all("coarse_gate" in name for name in changed)


def test_tuning_is_the_same_for_the_same_seed():
    runs = []
    for _ in range(2):
        model = _model()
        _sparse(model)
        runs.append(tune(model, CLIP, Tuning(steps=3), teacher=_model()))
    assert runs[0] == runs[1]


def test_what_is_called_before_a_step_can_raise_the_sparsity():
    model, seen = _model(), []
    converted = _sparse(model)

    def before(step):
        converted[0].attention.density = (1.0, 0.5, 0.25)[step]
        if step:
            seen.append(converted[0].last.density)

    tune(model, CLIP, Tuning(steps=3, objective="velocity"), before=before)
    assert [*seen, converted[0].last.density] == [1.0, 0.5, 0.25]


def test_tuning_says_what_is_missing():
    with pytest.raises(InputError, match="needs a teacher"):
        tune(_model(), CLIP, Tuning())
    with pytest.raises(InputError, match="nothing to train"):
        tune(_model(), CLIP, Tuning(trains="correction"), teacher=_model())
    with pytest.raises(InputError, match="objective is"):
        Tuning(objective="images")
    with pytest.raises(InputError, match="positive"):
        Tuning(steps=0)
    with pytest.raises(InputError, match="learning rate"):
        model = _model()
        model.head.bias.data[:] = float("nan")
        tune(model, CLIP, Tuning(steps=1, objective="velocity"))


def test_low_rank_changes_start_at_nothing_and_fold_into_the_weights():
    model, x, t = _model(), torch.randn(1, 4, 16, 16), torch.tensor([0.5])
    longer = extend(model, 4, rank=3)
    assert torch.allclose(longer(x, t), model(x, t), atol=1e-6)
    trained = [name for name, each in longer.named_parameters() if each.requires_grad]
    assert {name.rsplit(".", 1)[1] for name in trained} == {"up", "down"}
    tune(longer, CLIP, Tuning(steps=3, objective="velocity", lr=1e-2))
    tuned, deltas = longer(x, t), lora_deltas(longer)
    assert not torch.allclose(tuned, model(x, t), atol=1e-4)
    assert fold_lora(longer) == 4
    assert torch.allclose(longer(x, t), tuned, atol=1e-5)
    assert all(torch.allclose(longer.state_dict()[name], model.state_dict()[name] + each, atol=1e-6) for name, each in deltas.items())
    assert not any(isinstance(each, LoRALinear) for each in longer.modules())


def test_low_rank_changes_need_layers():
    with pytest.raises(InputError, match="0 layers match"):
        add_lora(_model(), "nothing.*")
    with pytest.raises(InputError, match="at least 1 frame"):
        extend(_model(), 0)


def test_recording_gives_what_attention_was_given():
    model, batch = _model(), batch_of(CLIP, 2, 0)
    found = recorded(model, batch.mixed, batch.t)
    assert len(found) == 4
    assert found[0].q.shape == (2, 256, 12)
    assert found[0].grid == Grid(4, 8, 8)
    assert "attend" not in vars(model.blocks[0].attn)
    assert np.allclose(np.sqrt((found[0].q ** 2).mean(axis=2)).mean(), 1, atol=0.2)  # qk-norm


def test_split_attention_sums_to_all_of_it():
    batch = batch_of(CLIP, 1, 0)
    tensors = recorded(_model(), batch.mixed, batch.t)[0]
    kept, rest = split_ranks(tensors, 0.25)
    assert kept.shape == rest.shape == (2,)
    assert (kept >= 1).all()
    assert (rest >= 1).all()


def test_sampling_follows_the_velocity_home():
    class Knows(torch.nn.Module):
        def forward(self, clips, t):
            return (clips - 3.0) / t[:, None, None, None]

    assert torch.allclose(sample(Knows(), torch.randn(2, 4, 8, 8), 10), torch.full((2, 4, 8, 8), 3.0), atol=1e-5)


def test_first_steps_of_sampling_run_dense():
    model = _model()
    converted = _sparse(model)
    densities = []
    for each in converted:
        each.attention.schedule = Schedule(dense_steps=0.5)
        each.attention.register_forward_hook(lambda _module, _args, result: densities.append(result.density))
    sample(model, torch.randn(1, 4, 16, 16), 4, converted)
    assert densities == [1.0] * 4 + [0.5] * 4


def test_measures_of_equal_and_of_shifted_clips():
    pixels = CLIP.pixels(2, np.random.default_rng(0))
    assert psnr(pixels, pixels) == float("inf")
    assert ssim(pixels, pixels) == pytest.approx(1)
    assert gradient_error(pixels, pixels) == 0
    assert gradient_error(pixels, 0.5 * pixels) > gradient_error(pixels, 0.9 * pixels) > 0
    assert ssim(pixels, np.roll(pixels, 1, axis=3)) > ssim(pixels, np.roll(pixels, 3, axis=3))


def test_validation_is_the_same_however_it_is_cut():
    model = _model()
    assert np.allclose(validation_loss(model, CLIP, 8, 2), validation_loss(model, CLIP, 8, 8), atol=1e-5)


def test_pictures_hold_every_frame_and_every_method():
    strips = filmstrips({"dense": CLIP.pixels(1, np.random.default_rng(0))[0], "sparse": np.zeros((4, 16, 16))})
    assert strips.count("<image") == 8
    image = base64.b64decode(strips.split("base64,")[1].split('"')[0])
    assert struct.unpack(">2I", image[16:24]) == (16, 16)
    drawn = curves({"a": (np.array([0.1, 0.5]), np.array([1.0, 2.0])), "b": (np.array([0.2]), np.array([3.0]))}, "dB")
    assert drawn.count("<polyline") == 2


def test_a_picture_can_be_read_by_others():
    frame = np.random.default_rng(0).random((5, 7))
    read = np.asarray(pytest.importorskip("PIL.Image").open(io.BytesIO(png(frame))))
    assert np.array_equal(read, (frame * 255).round().astype(np.uint8))


def test_a_converted_model_stays_so_when_it_is_recorded():
    model, batch = _model(), batch_of(CLIP, 1, 0)
    _sparse(model)
    before = model(batch.mixed, batch.t)
    recorded(model, batch.mixed, batch.t)
    assert torch.equal(model(batch.mixed, batch.t), before)


def test_everything_can_be_tuned_after_the_correction_alone():
    model = _model()
    _sparse(model)
    tune(model, CLIP, Tuning(steps=1, trains="correction"), teacher=_model())
    before = model.embed.weight.clone()
    tune(model, CLIP, Tuning(steps=2), teacher=_model())
    assert not torch.equal(model.embed.weight, before)


def test_low_rank_changes_leave_corrections_alone():
    model, x, t = _model(), torch.randn(1, 4, 16, 16), torch.tensor([0.5])
    _sparse(model)
    before = model(x, t)
    names = add_lora(model, rank=2)
    assert len(names) == 4
    assert not any("coarse" in name for name in names)
    assert torch.allclose(model(x, t), before, atol=1e-6)
    trained = {name.rsplit(".", 1)[1] for name, each in model.named_parameters() if each.requires_grad}
    assert trained == {"up", "down", "weight", "bias"}


def test_folding_nothing_changes_nothing():
    model = _model().requires_grad_(False)
    assert fold_lora(model) == 0
    assert not any(each.requires_grad for each in model.parameters())


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_other_precisions_run_converted_or_not(kind):
    model = _model().to(kind)
    x, t = torch.randn(1, 4, 16, 16, dtype=kind), torch.tensor([0.5], dtype=kind)
    assert model(x, t).dtype == kind
    _sparse(model)
    assert model(x, t).dtype == kind
    add_lora(model)
    assert model(x, t).dtype == kind


def test_a_model_that_was_used_for_inference_can_be_trained():
    model = _model()
    with torch.inference_mode():
        model(torch.randn(1, 4, 16, 16), torch.tensor([0.5]))
    tune(model, CLIP, Tuning(steps=1, objective="velocity"))


def test_clips_do_not_depend_on_what_was_drawn_before():
    model, noise = _model(), torch.randn(1, 4, 16, 16)
    converted = convert(model, lambda: svg2(0.5, layout=KMeansLayout(4, 8), min_tokens=0), "blocks.*.attn")
    first = sample(model, noise, 3, converted)
    sample(model, torch.randn(1, 4, 16, 16), 3, converted)
    assert torch.equal(sample(model, noise, 3, converted), first)


def test_edges_of_odd_pictures_are_compared():
    a = np.random.default_rng(0).random((2, 19, 21))
    assert gradient_error(a, a) == 0


def test_validation_leaves_the_model_as_it_was():
    model = _model().eval()
    validation_loss(model, CLIP, 8, 8)
    assert not model.training
