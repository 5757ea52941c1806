"""The estimator on a GPU: the whole of `fit` and of its use, over the device in memory."""

import platform
import threading
from types import SimpleNamespace

import numpy as np
import pytest
from emulator import GXX, Emulator
from numpy.testing import assert_allclose, assert_array_equal

from minivae import VAE, backend
from minivae.kernels import cuda

pytestmark = pytest.mark.skipif(
    GXX is None or platform.system() != "Linux", reason="the emulated GPU needs Linux and g++"
)


@pytest.fixture(autouse=True)
def device(monkeypatch):
    """A device in memory as GPU 0."""
    emulator = Emulator(3)
    monkeypatch.setattr(cuda, "find", lambda index, precision: emulator)
    backend._cuda.cache_clear()
    yield emulator
    backend._cuda.cache_clear()


def vae(device, **settings):
    return VAE(2, hidden_layer_sizes=(5,), batch_size=4, epochs=3, dtype="float64", device=device,
               random_state=0, **settings)  # fmt: skip


@pytest.mark.parametrize("settings", [dict(binarize="stochastic"), dict(likelihood="gaussian")])
def test_an_estimator_is_the_same_on_a_gpu(settings, tmp_path):
    X = np.random.default_rng(0).random((14, 7))
    one = vae("reference", **settings).fit(X, X_valid=X[:5])
    two = vae("cuda", **settings).fit(X, X_valid=X[:5])
    assert_allclose(two._state.theta, one._state.theta, rtol=0, atol=1e-12)
    assert_allclose(two._state.moments, one._state.moments, rtol=0, atol=1e-12)
    for name in ("loss", "nll", "kl", "valid_elbo", "gradient_norm"):
        assert_allclose(two.history_[name], one.history_[name], rtol=1e-11)
    for model in (one, two):
        model.partial_fit(X)
    assert_allclose(two._state.theta, one._state.theta, rtol=0, atol=1e-12)
    assert_allclose(two.score_samples(X, 3), one.score_samples(X, 3), rtol=0, atol=1e-10)
    for use in ("transform", "reconstruct", "elbo"):
        assert_allclose(getattr(two, use)(X), getattr(one, use)(X), rtol=0, atol=1e-10)
    assert_allclose(two.sample(5, random_state=1), one.sample(5, random_state=1), atol=1e-10)
    assert two.check_gradients(X[:2]).passed
    two.save(tmp_path / "model")
    assert_array_equal(VAE.load(tmp_path / "model").transform(X), two.transform(X))


def test_auto_takes_the_gpu():
    assert backend.machine("auto") is backend.machine("cuda")


def test_a_loss_that_is_not_finite_is_explained():
    X = np.random.default_rng(0).random((14, 7))
    model = vae("cuda", likelihood="gaussian", optimizer="sgd", learning_rate=1e200)
    with pytest.raises(FloatingPointError, match="Try a learning_rate below 1e"):
        model.fit(X)


def test_rows_that_are_fetched_as_needed(tmp_path):
    X = np.random.default_rng(0).random((14, 7))
    stored = np.memmap(tmp_path / "X", float, "w+", shape=X.shape)
    stored[:] = X
    models = [vae("cuda").fit(data) for data in (X, stored)]
    assert_array_equal(models[1]._state.theta, models[0]._state.theta)


def test_threads_take_turns_on_a_gpu():
    """A kernel that another thread launches while a step is captured would become a part of it."""
    X = np.random.default_rng(0).random((14, 7))
    used, expected = vae("cuda").fit(X), vae("cuda").fit(X)
    codes, errors, done = used.transform(X), [], threading.Event()

    def use():
        try:
            while not done.is_set():
                assert_array_equal(used.transform(X), codes)
        except BaseException as error:
            errors.append(error)

    other = threading.Thread(target=use)
    other.start()
    try:
        model = vae("cuda").fit(X)
    finally:
        done.set()
        other.join()
    assert not errors
    assert_array_equal(model._state.theta, expected._state.theta)


# --- X that is on the GPU already -----------------------------------------------------------------


def there(device, X):
    """X on the device, as a cupy.ndarray would be."""
    array = device.empty(X.shape, X.dtype)
    device.upload(np.ascontiguousarray(X), array)
    return array


def test_data_on_the_gpu_are_trained_on_where_they_are(device, monkeypatch):
    X = np.random.default_rng(0).random((14, 7))
    expected, on_device = vae("cuda").fit(X, X_valid=X[:3]), there(device, X)
    uploads, upload = [], device.upload
    monkeypatch.setattr(
        device, "upload", lambda host, array: uploads.append(host.shape) or upload(host, array)
    )
    model = vae("cuda").fit(on_device, X_valid=there(device, X[:3]))
    assert X.shape not in uploads[1:]  # the first is that of `there`, for X_valid
    assert_array_equal(model._state.theta, expected._state.theta)
    assert model.history_["valid_elbo"] == expected.history_["valid_elbo"]
    model.partial_fit(on_device)
    for use in ("transform", "reconstruct", "elbo", "loss_and_gradients"):
        got, want = (getattr(model, use)(data) for data in (on_device, X))
        assert_array_equal(got if use != "loss_and_gradients" else got[0],
                           want if use != "loss_and_gradients" else want[0])  # fmt: skip
        assert type(got) in (np.ndarray, tuple)


def test_data_on_the_gpu_that_do_not_fit_the_model_are_refused_before_it_changes(device):
    X = np.random.default_rng(0).random((14, 7))
    elsewhere = there(device, X)
    elsewhere.device = SimpleNamespace(id=1)
    strange = SimpleNamespace(__cuda_array_interface__={})  # a tensor of another library
    model = vae("cuda").fit(X)
    before = model._state.theta.tobytes()
    for data, words in [
        (there(device, X.astype("f4")), "X is a GPU's array of float32 .* C-contiguous float64"),
        (there(device, np.tile(X, 2))[:, ::2], "X is a GPU's array of float64 with strides"),
        (there(device, X.T).T, "C-contiguous float64, as the model is"),
        (elsewhere, 'X is on GPU 1, expected it on GPU 0, that of device="cuda"'),
        (strange, "X is a SimpleNamespace on a GPU, expected a cupy.ndarray"),
        (there(device, X[:, :3]), "X has 3 features"),
        (there(device, np.full((14, 7), np.nan)), "X contains NaN"),
    ]:
        for call in (model.partial_fit, model.transform, model.resume):
            with pytest.raises(ValueError, match=words):
                call(data)
    with pytest.raises(ValueError, match=r"X is a DeviceArray on a GPU.*cupy.asnumpy\(X\)"):
        vae("cpu").fit(there(device, X))
    assert model._state.theta.tobytes() == before
