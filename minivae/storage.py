"""Model files: safetensors, with one entry of sorted JSON for everything that is not an array.

Never a pickle: a model file can hold numbers and text, and nothing in it is run.
"""

import json
import os
import tempfile

import numpy as np

FORMAT = 1


class StorageError(Exception):
    """A model file that cannot be written or read; the message has the file and the reason."""


def write(path, arrays, facts):
    """Write {name: array} and the JSON-able dict facts to path: whole, or not at all.

    The bytes go to a temporary file beside the target, which then takes the target's name. What
    is there under that name is replaced only if it is a regular file.
    """
    from safetensors.numpy import save

    path = os.fspath(path)
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise StorageError(f"{path}: the folder {folder} does not exist; make it first")
    if os.path.lexists(path) and not (os.path.isfile(path) and not os.path.islink(path)):
        raise StorageError(f"{path}: is there and is not a regular file; choose another name")
    try:
        document = json.dumps(
            {"format": FORMAT, **facts}, sort_keys=True, allow_nan=False, default=_plain
        )
    except ValueError as error:
        raise StorageError(f"{path}: the model's history or settings hold {error}") from error
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise StorageError(f"{path}: not written, {name} has values that are NaN or infinite")
    # safetensors would write strided arrays in their memory order, that is scrambled.
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    data = save(contiguous, metadata={"minivae": document})
    try:
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".minivae-")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            mask = os.umask(0)
            os.umask(mask)
            os.chmod(temporary, 0o666 & ~mask)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error


def read(path):
    """({name: array}, facts) of a file that `write` made."""
    from safetensors import SafetensorError, safe_open

    path = os.fspath(path)
    if os.path.isdir(path):
        raise StorageError(f"{path}: is a folder; the model is a file in it, model.safetensors")
    try:
        with safe_open(path, framework="numpy") as file:
            document = (file.metadata() or {}).get("minivae")
            arrays = {name: file.get_tensor(name) for name in file.keys()}
    except FileNotFoundError as error:
        raise StorageError(f"{path}: there is no such file") from error
    except (OSError, SafetensorError, TypeError, AttributeError) as error:  # also odd dtypes
        raise StorageError(f"{path}: is not a whole safetensors file ({error})") from error
    if document is None:
        raise StorageError(f"{path}: is a safetensors file, but not one of minivae's")
    try:
        facts = json.loads(document)
        version = facts.pop("format")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StorageError(f"{path}: its metadata cannot be read ({error!r})") from error
    if version != FORMAT:
        raise StorageError(
            f"{path}: has format {version}, this minivae reads {FORMAT}; update minivae"
        )
    return arrays, facts


def compare(path, arrays, targets):
    """Raise unless {name: array}, read from path, are what {name: target} can hold."""
    if arrays.keys() != targets.keys():
        odd = ", ".join(sorted(arrays.keys() ^ targets.keys()))
        raise StorageError(f"{path}: arrays are missing or not expected: {odd}")
    for name, target in targets.items():
        array = arrays[name]
        if array.shape != target.shape or array.dtype != target.dtype:
            raise StorageError(
                f"{path}: {name} is {array.dtype} {array.shape}, "
                f"expected {target.dtype} {target.shape}"
            )
        if not np.isfinite(array).all():
            raise StorageError(f"{path}: {name} has values that are NaN or infinite")


def _plain(value):
    """NumPy's numbers and arrays as Python's, for JSON."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"{value!r} cannot be kept in a model file")
