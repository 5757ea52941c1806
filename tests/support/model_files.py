"""What is in a model file, and files that were forged."""

import json

from safetensors import safe_open
from safetensors.numpy import save_file

from minivae.files import storage


def parts(path):
    """({name: array}, {"minivae": text}) of a file."""
    with safe_open(path, "numpy") as file:
        return {name: file.get_tensor(name).copy() for name in file.keys()}, file.metadata()


def forge(path, arrays, facts):
    """A file of these, with a checksum that is right, whatever they are."""
    facts = {name: value for name, value in facts.items() if name != "checksum"}
    try:
        document = storage.seal(arrays, facts)
    except ValueError:  # of what JSON cannot hold there is none
        document = json.dumps(facts)
    save_file(arrays, path, {"minivae": document})
