"""Reference values of the counter-based generator and of the random streams made of it.

    pip install randomgen && python3 tests/reference/philox.py > crates/graph/src/streams/reference.txt

Philox4x32-10 is written here from the paper (Salmon, Moraes, Dror and Shaw, SC11), checked against the known answers
of Random123 and, for random counters and keys, against `randomgen.Philox(number=4, width=32)`, which is C code of
another origin. Lines of the file:

    words c0 c1 c2 c3 k0 k1 = w0 w1 w2 w3      the generator, hexadecimal
    uniform key counter element = bits         an element of a random tensor, the float's bits hexadecimal
    key seed number = key                      the key of a stream's draw

Written with NumPy 2.4.6 and randomgen 2.5.1.
"""

import random
import struct

import numpy as np
import randomgen

MASK = 0xFFFFFFFF


def philox(counter, key):
    x, (k0, k1) = list(counter), key
    for _ in range(10):
        left, right = 0xD2511F53 * x[0], 0xCD9E8D57 * x[2]
        x = [(right >> 32) ^ x[1] ^ k0, right & MASK, (left >> 32) ^ x[3] ^ k1, left & MASK]
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return x


def independent(counter, key):
    # The generator steps its counter before it computes a block.
    position = sum(word << 32 * i for i, word in enumerate(counter))
    state = randomgen.Philox(
        counter=(position - 1) % 2**128, key=key[0] | key[1] << 32, number=4, width=32
    )
    return [int(word) for word in state.random_raw(4)]


def halves(value):
    return [value & MASK, value >> 32 & MASK]


def uniform(key, counter, element):
    block, word, lane = element // 64, element % 64 // 16, element % 16
    at = (counter + 16 * block + lane) % 2**64
    bits = philox([*halves(at), 0, 0], halves(key))[word]
    return np.float32((bits >> 8) / 2**24)


KNOWN = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([MASK] * 4, [MASK] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]
for counter, key, words in KNOWN:
    assert philox(counter, key) == words == independent(counter, key)

draw = random.Random(20260101)
for _ in range(32):
    counter, key = [draw.getrandbits(32) for _ in range(4)], [draw.getrandbits(32) for _ in range(2)]
    words = philox(counter, key)
    assert words == independent(counter, key)
    text = [f"{word:08x}" for word in counter + key]
    print("words", *text, "=", *[f"{word:08x}" for word in words])

COUNTERS = [0, 16, 2**32 - 8, 2**40 + 3, 2**63 - 1]
for counter in COUNTERS:
    key = draw.getrandbits(64)
    for element in [0, 1, 15, 16, 17, 63, 64, 127, 128, 999, 2**33 + 77]:
        bits = struct.unpack("<I", struct.pack("<f", uniform(key, counter, element)))[0]
        print("uniform", key, counter, element, "=", f"{bits:08x}")

for seed in [0, 1, 1234, 2**64 - 1]:
    for number in [0, 1, 2, 2**32]:
        words = philox([*halves(number), 0, 0], halves(seed))
        print("key", seed, number, "=", words[0] | words[1] << 32)
