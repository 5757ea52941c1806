"""Hostile and damaged model files: each is refused in words, or is provably the same model."""

import contextlib
import copy
import json
import random
import time
import tracemalloc

import numpy as np
import pytest
from families import SCHEMA, table
from safetensors.numpy import save
from tiny import FAMILIES, same_model, tiny

import minivae
from minivae import VAE, StorageError
from minivae.files import storage

X = np.random.default_rng(0).random((20, 5))
SEALED = f'{{"checksum": "{"0" * 64}", '  # by what should not pass
REDUCED = 600, pytest.param(20_000, marks=pytest.mark.slow)
SLACK = 2**20  # bytes that a load may take beside its file: a small model's estimator, messages


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    return tiny(request.param, epochs=3).fit(X)


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """Bytes of the model's file."""
    path = tmp_path_factory.mktemp("model") / "whole"
    model.save(path)
    return path.read_bytes()


def header_length(content):
    return 8 + int.from_bytes(content[:8], "little")


def same(a, b):
    try:
        same_model(a, b)
    except AssertionError:
        return False
    return a.get_params() == b.get_params() and a.record_.data == b.record_.data


def refused_or_same(content, path, model):
    """Whether the file is refused; else it must be the model. Neither may take long or much."""
    path.write_bytes(content)
    tracemalloc.start()
    begin = time.perf_counter()
    try:
        loaded = minivae.load(path)
    except StorageError as error:
        assert str(path) in str(error) and len(str(error)) < 1000
        loaded = None
    seconds, (_, peak) = time.perf_counter() - begin, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 2, f"took {seconds:.1f} s"
    assert peak < 10 * len(content) + SLACK, f"{len(content)} bytes took {peak} bytes to load"
    assert loaded is None or same(loaded, model)
    return loaded is None


def test_a_whole_file_is_the_model(whole, model, tmp_path):
    assert not refused_or_same(whole, tmp_path / "file", model)


@pytest.mark.parametrize("places", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_a_file_cut_off_anywhere_is_refused(places, whole, model, tmp_path):
    header = header_length(whole)
    lengths = [*range(header), *random.Random(0).sample(range(header, len(whole)), places)]
    for length in lengths if places == 500 else [*lengths[:: header // 100], *lengths[-places:]]:
        assert refused_or_same(whole[:length], tmp_path / "file", model), f"{length} bytes"


@pytest.mark.parametrize("places", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_flipped_bit_is_noticed_wherever_it_is(places, whole, model, tmp_path):
    draw = random.Random(0)
    header, passed = header_length(whole), 0
    randoms = [draw.randrange(len(whole)) for _ in range(places)]
    for place in [*range(0, header, 1 if places == 2000 else 13), *randoms]:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        passed += not refused_or_same(bytes(flipped), tmp_path / "file", model)
    assert passed <= places / 20  # white space between the words of JSON, if any


def test_the_checksum_is_what_notices_a_flip_in_the_parameters(whole, model, tmp_path, monkeypatch):
    """The test above could not pass without it."""
    flipped = bytearray(whole)
    flipped[-3] ^= 1
    assert refused_or_same(bytes(flipped), tmp_path / "file", model)
    monkeypatch.setattr(storage, "_sealed", lambda arrays, document: SEALED + document[1:])
    facts = json.loads(json.loads(whole[8 : header_length(whole)])["__metadata__"]["minivae"])
    del facts["checksum"]
    arrays = {name: array for name, array in model.state_.arrays(model.layout_).items()}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    forged = bytearray(save(arrays, {"minivae": storage.seal(arrays, facts)}))
    forged[-3] ^= 1
    with pytest.raises(AssertionError):
        refused_or_same(bytes(forged), tmp_path / "file", model)


# --- fuzzing ------------------------------------------------------------------------------------

ODD = [None, True, -1, 0, 1, 2**31, 2**63, 2**64, 10**400, 1.5, -0.0, 1e308, float("nan"), "", "a",
       "\x00", "\ud800", "é" * 50, [], [1], [[]], [[1]] * 50, {}, {"a": 1}, {"rows": -1},
       "encoder", "float64", [10**9] * 3, ["a"] * 5]  # fmt: skip


def bytes_changed(draw, whole):
    content = bytearray(whole)
    for _ in range(draw.randint(1, 8)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    return bytes(content)


def piece_moved(draw, whole):
    a, b, c = sorted(draw.randrange(len(whole)) for _ in range(3))
    return draw.choice([whole[:a] + whole[b:], whole[:b] + whole[a:], whole[:a] + whole[b:c]])


def length_changed(draw, whole):
    length = draw.choice([0, 1, 2, 2**31, 2**63, 2**64 - 1, draw.randrange(2 * len(whole))])
    return length.to_bytes(8, "little") + whole[8:]


def header_changed(draw, whole):
    """The header stays JSON of the right length, with an odd value somewhere."""
    end = header_length(whole)
    header = replaced(draw, json.loads(whole[8:end]))
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + whole[end:]


def forged(draw, whole):
    """Facts or arrays are odd, and the checksum is right."""
    end = header_length(whole)
    facts = json.loads(json.loads(whole[8:end])["__metadata__"]["minivae"])
    del facts["checksum"]
    while True:
        odd = replaced(draw, facts)
        if odd != facts and isinstance(odd, dict):
            break
    arrays = dict(storage_arrays(whole))
    try:
        document = storage.seal(arrays, odd)
    except ValueError:  # NaN
        document = json.dumps(odd)
    return save(arrays, {"minivae": document})


def storage_arrays(whole):
    from safetensors.numpy import load

    return load(whole)


def replaced(draw, value):
    """A copy with an odd value somewhere inside."""
    value = copy.deepcopy(value)
    at, keys = value, []
    while isinstance(at, dict | list) and len(at) and (not keys or draw.random() < 0.7):
        key = draw.choice(list(at) if isinstance(at, dict) else range(len(at)))
        keys.append((at, key))
        at = at[key]
    holder, key = keys[-1]
    if draw.random() < 0.2 and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = draw.choice(ODD)
    return value


@pytest.mark.parametrize("count", REDUCED)
def test_fuzzed_files_are_refused_or_the_same_model(count, whole, model, tmp_path):
    draw = random.Random(count)
    refused = 0
    for index in range(count):
        damage = draw.choice([bytes_changed, piece_moved, length_changed, header_changed])
        content = damage(draw, whole)
        try:
            refused += refused_or_same(content, tmp_path / "file", model)
        except Exception as error:
            (tmp_path / "culprit").write_bytes(content)
            raise AssertionError(f"{damage.__name__}, file {index}: {error!r}") from error
    assert refused > 0.9 * count


@pytest.mark.parametrize("count", [300, pytest.param(5_000, marks=pytest.mark.slow)])
def test_forged_facts_are_refused_or_harmless(count, whole, tmp_path):
    """With a right checksum, what is accepted must at least be a model that works."""
    draw, path = random.Random(count), tmp_path / "file"
    for index in range(count):
        path.write_bytes(forged(draw, whole))
        try:
            loaded = minivae.load(path)
        except StorageError as error:
            assert str(path) in str(error)
            continue
        assert np.isfinite(loaded.set_params(device="reference").sample(3)).all(), index
        fitting = np.resize(X, (len(X), loaded.n_features_in_))  # where no array says how many
        assert np.isfinite(loaded.loss_and_gradients(fitting)[0]), index
        loaded.save(path)
        assert same(minivae.load(path), loaded)


@pytest.fixture(scope="module")
def of_table(tmp_path_factory):
    """Bytes of the file of a model of a table."""
    path = tmp_path_factory.mktemp("table") / "whole"
    settings = dict(likelihood="mixed", missing="mask", schema=SCHEMA)
    tiny("vae", epochs=1, **settings).fit(table(20)).save(path)
    return path.read_bytes()


def facts_of(whole):
    facts = json.loads(json.loads(whole[8 : header_length(whole)])["__metadata__"]["minivae"])
    del facts["checksum"]
    return facts


def with_schema(whole, schema):
    """The file with other facts of its schema, and a checksum that is right."""
    arrays, facts = storage_arrays(whole), facts_of(whole) | {"schema": schema}
    try:
        document = storage.seal(arrays, facts)
    except ValueError:  # NaN
        document = json.dumps(facts)
    return save(arrays, {"minivae": document})


@pytest.mark.parametrize("count", [300, pytest.param(5_000, marks=pytest.mark.slow)])
def test_forged_schemas_are_refused_or_harmless(count, of_table, tmp_path):
    """One fact of a column is odd; what is accepted draws rows, and can be stored."""
    draw, path = random.Random(count), tmp_path / "file"
    schema, refused = facts_of(of_table)["schema"], 0
    for index in range(count):
        odd = replaced(draw, schema)
        content = with_schema(of_table, odd)
        path.write_bytes(content)
        tracemalloc.start()
        try:
            loaded = minivae.load(path)
        except StorageError as error:
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 1000
            loaded, refused = None, refused + 1
        except Exception as error:
            raise AssertionError(f"file {index}, schema {odd}: {error!r}") from error
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 10 * len(content) + SLACK
        if loaded is not None:
            assert len(loaded.sample(3)) == 3, odd
            assert loaded.schema_.describe()
            with contextlib.suppress(TypeError, ValueError):  # these may be no values of it now
                loaded.impute(table(3), n_samples=2)
            loaded.save(path)
            assert same(minivae.load(path), loaded)
    assert refused > 0.5 * count


def test_a_schema_that_does_not_fit_the_model_is_refused(of_table, whole, tmp_path):
    """Fewer columns than parameters, more, none at all, or one where the model is of no table."""
    schema, path = facts_of(of_table)["schema"], tmp_path / "file"
    columns = schema["columns"]

    def with_categories(n):
        values = [str(i) for i in range(n)]
        return [*columns[:4], columns[4] | {"values": values}, *columns[5:]]

    endless = [columns[0] | {"name": i} for i in range(20_000)]
    other = [columns[:-1], columns[::-1], columns * 2, endless, *map(with_categories, (9, 1001))]
    bad = [(of_table, None), (of_table, {}), (of_table, []), (whole, schema)]
    bad += [(of_table, schema | {"columns": change}) for change in ([], *other)]
    words = r"does not describe a model|expected float32|more than \d+ lists"
    for content, change in bad:
        path.write_bytes(with_schema(content, change))
        with pytest.raises(StorageError, match=words):
            minivae.load(path)


BOMBS = {  # headers that would take far more memory or time than file
    "lists": b'{"__metadata__":{"minivae":"{}"},"a":[' + b"[]," * 300_000 + b"[]]}",
    "tables": b'{"a":[' + b"{}," * 300_000 + b"{}]}",
    "depth": b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "quotes": b'{"a":"' + b'\\"' * 500_000,
    "lists in the facts": b'{"__metadata__":{"minivae":"{\\"a\\":[' + b"[]," * 300_000 + b'[]]}"}}',
    "digits": b'{"a":' + b"9" * 1_000_000 + b"}",
}


@pytest.mark.parametrize("name", BOMBS)
def test_headers_that_are_traps_are_refused_soon_and_cheaply(name, model, tmp_path):
    header = BOMBS[name]
    content = len(header).to_bytes(8, "little") + header
    assert refused_or_same(content, tmp_path / "file", model)


def test_a_model_of_many_features_with_odd_names_is_no_trap(tmp_path):
    """What `save` writes, `load` reads: brackets and quotes in names are not structure."""
    pd = pytest.importorskip("pandas", reason="pandas is not installed")
    names = [f'[{{"{i}\\' for i in range(20_000)]
    frame = pd.DataFrame(np.zeros((2, 20_000), "f4"), columns=names)
    VAE(latent_dim=1, hidden_layer_sizes=(), epochs=1, device="reference").fit(frame).save(
        tmp_path / "file"
    )
    assert minivae.load(tmp_path / "file").feature_names_in_.tolist() == names


def test_a_table_of_many_columns_is_no_trap(tmp_path):
    """Each column is a table of facts with a list: more of them than a small file may have."""
    model = tiny("vae", likelihood="mixed", hidden_layer_sizes=(), latent_dim=1, epochs=1)
    model.fit(np.random.default_rng(0).normal(size=(3, 6000))).save(tmp_path / "file")
    whole = (tmp_path / "file").read_bytes()
    assert not refused_or_same(whole, tmp_path / "file", model)


def test_more_layers_than_arrays_are_refused_before_they_are_planned(whole, model, tmp_path):
    facts = json.loads(json.loads(whole[8 : header_length(whole)])["__metadata__"]["minivae"])
    del facts["checksum"]
    facts["settings"]["hidden_layer_sizes"] = [1] * 99_999
    arrays = storage_arrays(whole)
    content = save(arrays, {"minivae": storage.seal(arrays, facts)})
    assert refused_or_same(content, tmp_path / "file", model)
