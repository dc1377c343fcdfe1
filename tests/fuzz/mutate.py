"""Inputs made from seeds by a random generator: what CI runs, the same inputs each time."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_TELLING = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, 1 << 52, (1 << 63) - 1, (1 << 64) - 1)


def mutations(seeds: Sequence[bytes], count: int, longest: int, seed: int) -> Iterator[bytes]:
    """Yield the seeds, and then ``count`` inputs that differ from one of them in a few places."""
    chance = random.Random(seed)
    yield from (one[:longest] for one in seeds)
    for _ in range(count):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            _change(data, chance, seeds)
        yield bytes(data[:longest])


def _change(data: bytearray, chance: random.Random, seeds: Sequence[bytes]) -> None:
    at = chance.randrange(len(data) + 1)
    kind = chance.randrange(6)
    if kind == 0 and data:
        data[at % len(data)] ^= 1 << chance.randrange(8)
    elif kind == 1:
        size = chance.choice((1, 2, 4, 8))
        data[at : at + size] = (chance.choice(_TELLING) & (1 << 8 * size) - 1).to_bytes(size, "little")
    elif kind == 2:
        del data[at:]
    elif kind == 3:
        del data[at : at + chance.randrange(1, 64)]
    elif kind == 4:
        data[at:at] = chance.randbytes(chance.randrange(1, 32))
    else:
        other = chance.choice(seeds)
        begin = chance.randrange(len(other) + 1)
        data[at : at + chance.randrange(64)] = other[begin : begin + chance.randrange(1, 256)]
