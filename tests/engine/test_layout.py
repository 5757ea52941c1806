"""Where parameters and workspace lie: no entry has two names or none, and values follow the names.

`toy.py` is a family that uses what no family of the package does yet: rows that are repeated, the
gradient by a net's input, heads of unequal width.
"""

import copy
import pickle

import numpy as np
import pytest
from families import SMALL
from numpy.testing import assert_allclose, assert_array_equal
from toy import Toy

from minivae.engine.layout import BLOCK, LAYER, PIECE, Layout, records
from minivae.kernels import STREAM_WEIGHTS
from minivae.kernels.tables import reference
from minivae.models import MODELS, find, nade
from minivae.models.vae import program as vae

X = (np.random.default_rng(0).random((14, 7)) > 0.5).astype(float)
DEVICE = pytest.mark.parametrize(
    "device", ["reference", pytest.param("cpu", marks=pytest.mark.slow)]
)


def toy(**settings):
    same = dict(dtype="float64", device="reference", batch_size=5, epochs=2, random_state=0)
    return Toy(**{**same, **settings})


def vae_layout(n_features=7, **settings):
    small = dict(latent_dim=2, hidden_layer_sizes=(5, 4), activation="relu", likelihood="gaussian",
                 missing="error")  # fmt: skip
    return Layout(vae, n_features, **{**small, **settings})


def layouts():
    """One of every family, and of the toy."""
    fitted = [find(name)(**SMALL[name]).new_state(7, 0) for name in MODELS]
    return [layout for _, layout, _ in [*fitted, toy().new_state(7, 0)]]


LAYOUTS = pytest.mark.parametrize("layout", layouts(), ids=lambda layout: layout.program.NAME)


# --- places -------------------------------------------------------------------------------------


@LAYOUTS
def test_every_entry_has_one_name(layout):
    flat = np.zeros(layout.n_parameters)
    views = layout.named_views(flat)
    for index, view in enumerate(views.values()):
        assert np.shares_memory(view, flat)
        view[...] += 1 + index  # a second name would show as a sum
    sizes = [view.size for view in views.values()]
    assert np.bincount(flat.astype(int)).tolist() == [0, *sizes]


@LAYOUTS
@pytest.mark.parametrize("B", [1, 5])
def test_every_number_of_a_workspace_has_one_region(layout, B):
    work = np.zeros(B * layout.width)
    views = layout.region_views(work, B)
    for name, (_, columns, repeat) in layout.regions.items():
        assert views[name].shape == ((B,) if name in layout.terms else (B * repeat, columns))
        views[name][...] += 1
    assert (work == 1).all()
    assert list(layout.regions)[: len(layout.terms)] == list(layout.program.TERMS)


@LAYOUTS
def test_blocks_and_pieces_follow_each_other_through_all_parameters(layout):
    """The second half of a step goes through them, so that none is left out or updated twice."""
    layers, blocks, pieces = layout.tables()
    for table, size in ((blocks, layout.n_parameters), (pieces, layout.n_parameters)):
        assert table.begin.tolist() == [0, *table.end[:-1]] and table.end[-1] == size
    assert blocks["first"].tolist() == [0, *blocks["last"][:-1]]
    assert blocks["last"][-1] == pieces.size
    for block in blocks:
        assert pieces.begin[block["first"]] == block.begin
        assert pieces.end[block["last"] - 1] == block.end
    # A layer that is used a second time has no block: the parameters are those of the first.
    own = sorted(layer for layer in blocks.layer if layer >= 0)
    assert sorted({*layers.weight}) == [layers.weight[layer] for layer in own]
    assert [blocks.begin[blocks.layer == layer].item() for layer in own] == [*layers.weight[own]]
    assert (pieces.end - pieces.begin) % pieces.columns == pytest.approx(0)


def test_records_do_not_hide_behind_what_numpy_calls_so():
    for fields in (LAYER, BLOCK, PIECE):
        n = len(fields.split())
        (record,) = records(fields, [range(n)])
        assert [getattr(record, name) for name in fields.split()] == list(range(n))
    with pytest.raises(AssertionError, match="NumPy would find its own method"):
        records("begin size", [])


def test_heads_of_unequal_width_lie_side_by_side():
    _, layout, state = toy().new_state(7, 0)
    views = layout.named_views(state.theta)
    shapes = {name: view.shape for name, view in views.items()}
    assert shapes == {
        "scale": (1, 2), "net.0.weight": (2, 5), "net.0.bias": (5,), "net.1.weight": (5, 4),
        "net.1.bias": (4,), "first.weight": (4, 1), "first.bias": (1,), "others.weight": (4, 6),
        "others.bias": (6,),
    }  # fmt: skip
    layer = layout.tables()[0][-1]
    whole = state.theta[layer.weight : layer.bias].reshape(4, 7)
    assert_array_equal(whole, np.hstack([views["first.weight"], views["others.weight"]]))
    assert (layer.fan_in, layer.fan_out, layer.times) == (4, 7, 3)


def test_names_and_regions_of_a_layout_are_declared_once():
    class Twice:
        TERMS = ("nll",)

        @staticmethod
        def make_plan(layout, n_features):
            layout.region("nll", n_features)

    with pytest.raises(AssertionError, match="two regions called 'nll'"):
        Layout(Twice, 3)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda a: pickle.loads(pickle.dumps(a))])
@LAYOUTS
def test_a_copy_is_the_same(layout, duplicate):
    twin = duplicate(layout)
    assert twin is not layout and twin.program is layout.program
    assert (twin.plan, twin.regions, twin.slots) == (layout.plan, layout.regions, layout.slots)
    assert all(map(np.array_equal, twin.tables(), layout.tables()))


# --- initial values -----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@LAYOUTS
def test_a_weight_is_a_function_of_seed_number_of_its_name_row_and_column(layout, dtype):
    """So it does not change with the sizes of what lies before it, or with a neighbour's width."""
    views = layout.named_views(layout.initialise(7, dtype))
    for index, (name, view) in enumerate(views.items()):
        assert view.dtype == dtype
        if not layout.slots[name].glorot:
            assert not view.any(), name
            continue
        u = np.empty(view.shape, dtype)
        reference.random_uniform(7, STREAM_WEIGHTS, index, 0, u)
        bound = (6 / sum(view.shape)) ** 0.5  # a head counts its own columns only
        assert_allclose(view, bound * (2 * u - 1), rtol=4 * np.finfo(dtype).eps)
    assert not np.array_equal(layout.initialise(8, dtype), layout.initialise(7, dtype))


def test_what_is_said_to_begin_with_0_does():
    _, layout, state = toy().new_state(7, 0)
    views = layout.named_views(state.theta)
    assert not views["others.weight"].any() and views["first.weight"].all() and views["scale"].all()


def test_initial_values_do_not_depend_on_the_sizes_of_other_parameters():
    small, large = (vae_layout(latent_dim=latents) for latents in (2, 3))
    views = [layout.named_views(layout.initialise(7, "float64")) for layout in (small, large)]
    assert list(views[0]) == list(views[1])
    for name in ("encoder.0.weight", "encoder.1.weight", "decoder.1.weight", "decoder.out.weight"):
        assert_array_equal(views[0][name], views[1][name])
    weights = [Layout(nade, 7, n_hidden=n).initialise(7, "float64")[: 7 * n] for n in (4, 6)]
    rows = [
        weight.reshape(7, -1) / (6 / (7 + n)) ** 0.5
        for weight, n in zip(weights, (4, 6), strict=True)
    ]
    assert_allclose(rows[0], rows[1][:, :4], rtol=1e-14)  # the same draws, scaled


# --- repeated rows ------------------------------------------------------------------------------


@DEVICE
@pytest.mark.parametrize("n_repeats", [1, 3])
def test_a_net_over_repeated_rows_passes_the_gradient_check(n_repeats, device):
    model = toy(n_repeats=n_repeats, device=device).fit(X)
    report = model.check_gradients(X)
    assert report.passed and report.worst <= 1e-6, str(report)
    checked = {name: entry.checked for name, entry in report.inputs.items()}
    assert checked == {name: view.size for name, view in model.parameters_.items()}


@DEVICE
def test_the_loss_of_repeated_rows_is_the_mean_over_repeats(device):
    model = toy(device=device).fit(X)
    p = model.parameters_
    eps = np.empty((3 * len(X), 2))
    reference.random_normal(model.seed_, 2, 0, 0, eps)  # the posterior's stream
    h = np.tanh(eps * p["scale"] @ p["net.0.weight"] + p["net.0.bias"])
    h = np.tanh(h @ p["net.1.weight"] + p["net.1.bias"])
    weight = np.hstack([p["first.weight"], p["others.weight"]])
    logits = h @ weight + np.hstack([p["first.bias"], p["others.bias"]])
    nll = (np.logaddexp(0, logits) - np.repeat(X, 3, axis=0) * logits).sum(axis=1)
    assert_allclose(model.loss_and_gradients(X)[0], nll.mean(), rtol=1e-13)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_repeated_rows_give_the_same_bits_for_any_number_of_threads(dtype):
    models = [toy(device="cpu", dtype=dtype, n_threads=n).fit(X) for n in (1, 2, 3)]
    for model in models[1:]:
        assert model.state_.theta.tobytes() == models[0].state_.theta.tobytes()
        assert model.history_["loss"] == models[0].history_["loss"]
    assert_allclose(models[0].state_.theta, toy().fit(X).state_.theta, rtol=0,
                    atol=200 * np.finfo(dtype).eps)  # fmt: skip  # some hundred roundings


def test_a_family_outside_of_the_package_is_a_family(tmp_path):
    """Fit, save, load, resume, score, draw and trace, with no code but its own file."""
    model = toy().fit(X, X_valid=X)
    assert model.history_.keys() == {
        "loss", "fit", "score", "gradient_norm", "seconds", "valid_score", "valid_fit"
    }  # fmt: skip
    model.save(tmp_path / "model")
    twin = Toy.load(tmp_path / "model").set_params(epochs=3).resume(X, X_valid=X)
    whole = toy(epochs=3).fit(X, X_valid=X)
    assert twin.state_.theta.tobytes() == whole.state_.theta.tobytes()
    with pytest.raises(ValueError, match="model must be one of vae, nade"):
        find("toy")
    assert_array_equal(model.sample(9, random_state=1)[:4], model.sample(4, random_state=1))
    assert "toy.py:" in str(model.trace(X))
