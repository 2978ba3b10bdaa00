"""Damaged copies of video files, and a process that tries to read clips from them.

As a program: reads lines ``number file`` from standard input and prints ``number outcome`` for each, where the outcome
is "clips", "VideoError" or the name of another exception with its text. Whoever started it sees from the first number
that is missing which file crashed it or made it hang.
"""

import random
import sys
from pathlib import Path

KINDS = ("header", "payload", "truncate", "zero", "repeat", "remove", "size")


def mutate(data: bytes, kind: str, chance: random.Random) -> bytes:
    """One kind of damage at places that ``chance`` chooses.

    header: bytes of the first or last 2 kB, where containers keep their tables; payload: bits anywhere; truncate, zero,
    repeat, remove: a piece of up to a third; size: a big-endian number that is far too large or small.
    """
    out = bytearray(data)
    start = chance.randrange(len(out))
    end = min(len(out), start + chance.randint(1, max(2, len(out) // 3)))
    if kind == "header":
        for _ in range(chance.randint(1, 30)):
            place = chance.randrange(min(2048, len(out)))
            out[place if chance.random() < 0.5 else -1 - place] = chance.randrange(256)
    elif kind == "payload":
        for _ in range(chance.choice((1, 10, 100, 1000))):
            out[chance.randrange(len(out))] ^= 1 << chance.randrange(8)
    elif kind == "truncate":
        del out[start:]
    elif kind == "zero":
        out[start:end] = bytes(end - start)
    elif kind == "repeat":
        out[end:end] = out[start:end]
    elif kind == "remove":
        del out[start:end]
    elif kind == "size":
        for _ in range(chance.randint(1, 4)):
            place = chance.randrange(max(1, min(4096, len(out)) - 4))
            place = place if chance.random() < 0.5 else len(out) - 4 - place
            out[place : place + 4] = chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x00010000)).to_bytes(4, "big")
    return bytes(out)


def outcome(path: str, way: int) -> str:
    """What reading a few clips comes to; ``way`` chooses how many, how many threads, and packets kept or read again."""
    from pseudo3d import Preprocessing, VideoError
    from pseudo3d.video import scan
    from pseudo3d.video.clips import ClipPlan, ClipStream

    scan._KEPT_BYTES = 0 if way % 4 > 1 else 1 << 23
    net = Preprocessing(num_frames=4, resize=24, crop=(24, 24))
    stream = ClipStream(path, ClipPlan(net, clips=1 + way % 3), threads=1 + way % 2)
    try:
        given = {number: frames.shape for number, frames in stream}
    except VideoError as error:
        message = str(error)
        right = message.startswith(f"{path}: ") and "\n" not in message
        return "VideoError" if right else f"a message of another form: {message!r}"
    except Exception as error:  # that there are none is what is tested
        return f"{type(error).__name__}: {error}".replace("\n", " ")
    whole = set(given) == set(stream.facts.rows) and set(given.values()) == {(4, 24, 24, 3)}
    return "clips" if whole else f"wrong clips {given}, {stream.facts}"


if __name__ == "__main__":
    for line in sys.stdin:
        name, _, file = line.rstrip("\n").partition(" ")
        print(name, outcome(file, int(name)), flush=True)
        Path(file).unlink()
