"""Random damage to the files of a directory."""

import json
import random
from collections.abc import Callable

# What stands in the place of a JSON value.
FOREIGN = (
    *(None, True, -1, 0, 7, 10**12, 10**4200, 0.5, float("nan"), "", "x", "..", "\0"),
    *([], ["x"], [2, 3], [3, 2], {}, {"x": 1}),
)


def mutated(files: dict[str, bytes], rng: random.Random) -> tuple[str, dict[str, bytes]]:
    """What was done to which file, and the files with it."""
    name = rng.choice(sorted(files))
    kinds = [_flip, _zero, _cut, _insert, _swap, _repeat]
    if name.endswith(".json"):
        kinds += [_value] * 6
    if name.endswith(".safetensors"):
        kinds += [_header] * 4
    kind = rng.choice(kinds)
    if rng.random() < 0.02:
        return f"{name} removed", {n: content for n, content in files.items() if n != name}
    return f"{name} by {kind.__name__}", {**files, name: kind(files[name], rng)}


def _flip(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _zero(content: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(content)), rng.randint(1, 64)
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


def _cut(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + (content[start + rng.randint(1, 8) :] if rng.random() < 0.5 else b"")


def _insert(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + rng.randbytes(rng.randint(1, 8)) + content[start:]


def _swap(content: bytes, rng: random.Random) -> bytes:
    length = rng.choice((1, 4, 16))
    a, b = sorted(rng.randrange(max(1, len(content) - length)) for _ in range(2))
    b = max(b, a + length)
    parts = content[:a], content[b : b + length], content[a + length : b], content[a : a + length]
    return b"".join(parts) + content[b + length :]


def _repeat(content: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] * 2 + content[start:]


def _value(content: bytes, rng: random.Random) -> bytes:
    """Another value in a JSON file, a key taken out or renamed, or a list in another order."""
    values = json.loads(content)
    _change(values, rng)
    return json.dumps(values).encode()


def _header(content: bytes, rng: random.Random) -> bytes:
    """The same in a safetensors file's header, which may give one tensor another's numbers."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    if rng.random() < 0.4:
        a, b = rng.sample(sorted(set(header) - {"__metadata__"}), 2)
        if rng.random() < 0.5:
            header[a], header[b] = header[b], header[a]
        else:
            header[a]["data_offsets"], header[b]["data_offsets"] = (
                header[b]["data_offsets"], header[a]["data_offsets"],
            )  # fmt: skip
    else:
        _change(header, rng)
    found = json.dumps(header).encode()
    return len(found).to_bytes(8, "little") + found + content[8 + size :]


def _change(values, rng: random.Random) -> None:
    key = rng.choice(sorted(values) if isinstance(values, dict) else range(len(values)))
    inner = values[key]
    if isinstance(inner, (dict, list)) and inner and rng.random() < 0.6:
        return _change(inner, rng)
    what: list[Callable[[], None]] = [lambda: values.__setitem__(key, rng.choice(FOREIGN))]
    if isinstance(values, dict):
        what.append(lambda: values.pop(key) and None)
        what.append(lambda: values.__setitem__(f"{key}_", values.pop(key)))
    if isinstance(values, list):
        what.append(lambda: rng.shuffle(values))
    if isinstance(inner, int):
        what.append(lambda: values.__setitem__(key, inner + rng.choice((-1, 1))))
    rng.choice(what)()
