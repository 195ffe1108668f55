"""Reference pickles for crates/datasets/tests/data/pickles.rs, as Python and NumPy write them.

Run: python pickles.py   (needs numpy; writes into the folder pickles beside it)

One value in protocols 0 to 4, and pickles that must be refused. The Rust test spells the value out by hand.
"""

import os
import pathlib
import pickle

import numpy as np

folder = pathlib.Path(__file__).parent / "pickles"
folder.mkdir(exist_ok=True)

shared = [1, 2]
value = {
    "none": None,
    "booleans": (True, False),
    "integers": [0, 255, 256, 65535, 65536, -1, 2**31 - 1, -(2**31), 2**31, 2**63 - 1, -(2**63)],
    "floats": [0.0, -1.5, 1e300, float("inf")],
    "text": "größer \u2264 \\ \n 'quoted' \U0001d11e",
    "bytes": b"\x00\xff'\\\n",
    "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
    "twice": [shared, shared],
    "nested": {"list": [[], [[]]], 7: {}},
    "float32": np.arange(6, dtype="float32").reshape(2, 3) / 4,
    "float64": np.array([0.1, -2.0]),
    "column major": np.asfortranarray(np.arange(24, dtype="int16").reshape(2, 3, 4)),
    "big-endian": np.array([1, -2, 300], dtype=">i4"),
    "uint8": np.array([0, 127, 255], dtype="uint8"),
    "bool": np.array([True, False]),
    "int64": np.array([[-(2**62)]], dtype="int64"),
    "rank 0": np.array(3.5, dtype="float32"),
    "empty": np.zeros((0, 784), dtype="float32"),
    "scalars": [np.float32(0.5), np.int64(-7), np.bool_(True), np.uint8(200)],
}
for protocol in range(5):
    # An empty array's bytes are written by a call of bytes() under the old protocols, which is no data.
    written = {k: v for k, v in value.items() if protocol >= 3 or k != "empty"}
    (folder / f"value_{protocol}.pkl").write_bytes(pickle.dumps(written, protocol=protocol))


class Command:
    def __reduce__(self):
        return (os.system, ("echo executed",))


class Plain:
    pass


(folder / "command_0.pkl").write_bytes(pickle.dumps(Command(), protocol=0))
(folder / "command_4.pkl").write_bytes(pickle.dumps([1, Command()], protocol=4))
(folder / "class_2.pkl").write_bytes(pickle.dumps(Plain(), protocol=2))
(folder / "objects_2.pkl").write_bytes(pickle.dumps(np.array([None, 1], dtype=object), protocol=2))
(folder / "fields_2.pkl").write_bytes(pickle.dumps(np.zeros(2, dtype=[("a", "f4")]), protocol=2))
(folder / "protocol_5.pkl").write_bytes(pickle.dumps([1], protocol=5))
