"""Files: replaced whole or not at all; model files in safetensors, with their facts as JSON.

Never a pickle: a model file can hold numbers and text, and nothing in it is run. It may come from
anyone, so sizes are checked before memory is taken, and a checksum tells damage from a model.
"""

import contextlib
import hashlib
import json
import os
import re
import secrets

import numpy as np

try:
    from fcntl import LOCK_EX, LOCK_NB, flock
except ImportError:  # Windows, where a file that is open cannot be removed by another process
    LOCK_EX = LOCK_NB = 0

    def flock(handle, operation):
        pass


CHECKPOINT, BEST = "checkpoint.safetensors", "best.safetensors"  # what a training leaves
FORMAT = 1
MAX_HEADER = 2**26  # bytes of names, shapes and facts
MAX_BRACKETS = 10_000  # lists and tables in a header; each takes far more memory than file,
BYTES_PER_BRACKET = 20  # unless so much of the text belongs to each, as of columns, or of arrays


class StorageError(Exception):
    """A model file that cannot be written or read; the message has the file and the reason."""


# --- writing ------------------------------------------------------------------------------------


def write(path, arrays, facts):
    """Write {name: array} and the JSON-able dict facts to path, as `replace` does.

    Equal arrays and facts give equal bytes. NaN and infinity are refused.
    """
    from safetensors.numpy import save

    path = name_of(path)
    # safetensors would write strided arrays in their memory order, that is scrambled.
    # Copied, as another thread may train on: what is hashed must be what is written.
    arrays = {name: np.array(array, order="C") for name, array in arrays.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise StorageError(f"{path}: not written, {name} has values that are NaN or infinite")
    facts = {"format": FORMAT, **facts}
    try:
        document = seal(arrays, facts)
    except ValueError as error:
        raise StorageError(f"{path}: not written, its history or settings hold {error}") from error
    replace(path, save(arrays, metadata={"minivae": document}))


def name_of(path):
    """A path as text."""
    if not isinstance(path, str | bytes | os.PathLike) or not os.fspath(path):
        raise TypeError(f"path must be the name of a file, got {path!r}")
    name = os.fsdecode(path)
    try:
        known = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        known = False
    if not known:
        raise StorageError(f"{name!a}: is no name that a file can have")
    return name


def replace(path, data):
    """Make data, bytes, the content of the file at path: whole, or not at all.

    They go to a temporary file beside the target, which then takes the target's name. What is
    there under that name is replaced only if it is a regular file.
    """
    path = name_of(path)
    try:
        folder = os.path.dirname(os.path.abspath(path))
    except FileNotFoundError as error:
        raise StorageError(f"{path}: the folder that it is relative to was removed") from error
    if not os.path.isdir(folder):
        raise StorageError(f"{path}: the folder {folder} does not exist; make it first")
    if os.path.lexists(path) and not (os.path.isfile(path) and not os.path.islink(path)):
        raise StorageError(f"{path}: is there and is not a regular file; choose another name")
    temporary = None
    try:
        clean(folder)
        handle, temporary = _temporary(folder)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)  # still locked, so that nobody cleans it away
        temporary = None
        _sync_folder(folder)
    except OSError as error:
        raise StorageError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        if temporary is not None:
            os.unlink(temporary)


@contextlib.contextmanager
def locked(folder):
    """Whether this process has the folder's lock, for as long as the block takes."""
    if not LOCK_EX:  # Windows cannot open a folder
        yield True
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            flock(handle, LOCK_EX | LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        yield alone
    finally:
        os.close(handle)


TEMPORARY = re.compile(r"\.minivae-[0-9a-f]{16}")


def clean(folder):
    """Remove the temporary files that writers left in the folder when they were killed."""
    for name in filter(TEMPORARY.fullmatch, os.listdir(folder)):
        path = os.path.join(folder, name)
        try:
            handle = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))  # or a pipe waits
            try:
                flock(handle, LOCK_EX | LOCK_NB)  # refused while its writer lives
                os.unlink(path)
            finally:
                os.close(handle)
        except OSError:
            pass  # in use, or gone


def _temporary(folder):
    """(handle, path) of a new file, open, locked, with the permissions of any new file."""
    while True:
        path = os.path.join(folder, f".minivae-{secrets.token_hex(8)}")
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0),
                         0o666)  # fmt: skip
        try:
            flock(handle, LOCK_EX)
            if os.path.exists(path):  # nobody cleaned it away before it was locked
                return handle, path
            os.close(handle)
        except BaseException:
            os.close(handle)
            os.unlink(path)
            raise


def _sync_folder(folder):
    """Have the folder's new entry on disk too; where folders cannot be opened, leave it."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


# --- reading ------------------------------------------------------------------------------------


def read(path):
    """({name: array}, facts) of a file that `write` made."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = name_of(path)
    if os.path.isdir(path):
        raise StorageError(f"{path}: is a folder; the model is a file in it, model.safetensors")
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise StorageError(f"{path}: is not a regular file")
    try:
        with open(path, "rb") as file:
            document, facts, start = _read_facts(path, file)
            arrays = load(start + file.read())
        whole = document == _sealed(arrays, "{" + document[SEAL:])
    except FileNotFoundError as error:
        raise StorageError(f"{path}: there is no such file") from error
    except (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{path}: is not a whole safetensors file ({error})") from error
    if not whole:
        raise StorageError(f"{path}: is damaged, its checksum is not that of its content")
    del facts["format"], facts["checksum"]
    return arrays, facts


def _read_facts(path, file):
    """(text of the facts, facts, all bytes read for them) at the beginning of an open file."""
    size, start = os.fstat(file.fileno()).st_size, file.read(8)
    length = int.from_bytes(start, "little")
    if len(start) < 8 or length > min(size - 8, MAX_HEADER):
        raise ValueError(f"{size} bytes, of which {length} would be its header")
    start += file.read(length)
    entries = _parse(start[8:].decode())
    document = (entries.get("__metadata__") or {}).get("minivae")
    if document is None:
        raise StorageError(f"{path}: is a safetensors file, but not one of minivae's")
    try:
        facts = _parse(document)
        version = facts["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{path}: its metadata cannot be read ({error!r})") from error
    if version != FORMAT:
        raise StorageError(
            f"{path}: has format {version}, this minivae reads {FORMAT}; update minivae"
        )
    return document, facts, start


def _parse(text):
    """The dict that a JSON text is; ValueError for another one, and for one that is a trap."""
    plain = text.replace("\\\\", "").replace('\\"', "").encode()  # every quote left is a string's
    letters = np.frombuffer(plain, np.uint8)
    quoted = np.bitwise_xor.accumulate(letters == ord('"'))
    brackets = ((letters == ord("[")) | (letters == ord("{"))) & ~quoted
    most = max(MAX_BRACKETS, len(letters) // BYTES_PER_BRACKET)
    if np.count_nonzero(brackets) > most:
        raise ValueError(f"more than {most} lists")
    try:
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("lists in lists in lists") from error
    if type(value) is not dict:
        raise ValueError("not a table of names and values")
    return value


def compare(path, arrays, targets):
    """Raise unless {name: array}, read from path, are what {name: target} can hold."""
    if arrays.keys() != targets.keys():
        odd = sorted(arrays.keys() ^ targets.keys())
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise StorageError(
            f"{path}: arrays are missing or not expected: {', '.join(odd[:5])}{more}"
        )
    for name, target in targets.items():
        array = arrays[name]
        if array.shape != target.shape or array.dtype != target.dtype:
            raise StorageError(
                f"{path}: {name} is {array.dtype} {array.shape}, "
                f"expected {target.dtype} {target.shape}"
            )
        if not np.isfinite(array).all():
            raise StorageError(f"{path}: {name} has values that are NaN or infinite")


# --- both ---------------------------------------------------------------------------------------


def seal(arrays, facts):
    """Facts as JSON, always in the same order, behind a checksum of theirs and the arrays'."""
    return _sealed(arrays, json.dumps(facts, sort_keys=True, allow_nan=False, default=_plain))


def _sealed(arrays, document):
    digest = hashlib.sha256(document.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"{name} {array.dtype.str} {array.shape}".encode())
        digest.update(memoryview(array).cast("B") if array.size else b"")
    return f'{{"checksum": "{digest.hexdigest()}", {document[1:]}'


SEAL = len(_sealed({}, "{"))  # letters before the first fact


def _plain(value):
    """NumPy's numbers and arrays, and others', as Python's, for JSON."""
    if isinstance(value, np.longdouble):
        return float(value)
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise ValueError(f"{value!r}, which is neither number nor text")
