"""Character noise: the five operators of BLT (Pagnoni et al. 2024, section 6.1), typos, look-alikes, swaps.

A character is a Unicode code point. Where an operator has a level, it is the chance that a character it can change is
changed.
"""

from __future__ import annotations

import itertools

import numpy as np

from bench.evaluation.noise.base import NONE, Noised, Operator

# --- of the paper


def _ant_speak(text: str, level: float, rng: np.random.Generator) -> Noised:
    upper = Noised.of((c.upper(), i) for i, c in enumerate(text))
    out = [(c, int(i)) for c, i in zip(upper.text, upper.origin, strict=True)]
    spaced = itertools.chain.from_iterable(((" ", NONE), piece) for piece in out)
    return Noised.of(list(spaced)[1:])


def _drop(text: str, level: float, rng: np.random.Generator) -> Noised:
    kept = rng.random(len(text)) >= level
    return Noised.of((c, i) for i, c in enumerate(text) if kept[i])


def _random_case(text: str, level: float, rng: np.random.Generator) -> Noised:
    upper = rng.random(len(text)) < 0.5
    return Noised.of((c.upper() if upper[i] else c.lower(), i) for i, c in enumerate(text))


def _repeat(text: str, level: float, rng: np.random.Generator) -> Noised:
    hit, more = rng.random(len(text)) < level, rng.random(len(text))
    return Noised.of((c * (2 + int(more[i] * 3)) if hit[i] else c, i) for i, c in enumerate(text))


def _upper_case(text: str, level: float, rng: np.random.Generator) -> Noised:
    return Noised.of((c.upper(), i) for i, c in enumerate(text))


# --- slips of the hand and of the eye

# The rows of a US keyboard, without and with shift; each row is shifted to the right of the one above it.
_ROWS = (
    ("`1234567890-=", "~!@#$%^&*()_+", 0.0),
    ("qwertyuiop[]\\", "QWERTYUIOP{}|", 1.5),
    ("asdfghjkl;'", 'ASDFGHJKL:"', 1.75),
    ("zxcvbnm,./", "ZXCVBNM<>?", 2.25),
)
_REACH = 1.3
"""Keys this far apart, in widths of a key, are neighbours: those beside, and those that touch above and below."""


def _neighbours() -> dict[str, str]:
    """Each letter of the keyboard -> what stands on the keys around it, with the same shift."""
    out = {}
    for shift in (False, True):
        keys = []
        for y, (plain, shifted, left) in enumerate(_ROWS):
            keys += [(key, left + i, y) for i, key in enumerate(shifted if shift else plain)]
        for key, x, y in keys:
            near = [other for other, u, v in keys if 0 < (x - u) ** 2 + (y - v) ** 2 <= _REACH**2]
            if key.isalpha():
                out[key] = "".join(sorted(near))
    return out


NEIGHBOURS = _neighbours()

# Letters of other scripts that look the same (a choice from Unicode's UTS 39, confusables).
LOOK_ALIKES = dict(
    zip(
        "acdeghijlopqsvwxyABCEHIJKMNOPSTXYZ",
        "асԁеɡһіјӏорԛѕνԝхуАВСЕНІЈКМΝОРЅТХΥΖ",
        strict=True,
    )
)


def _keyboard(text: str, level: float, rng: np.random.Generator) -> Noised:
    hit, which = rng.random(len(text)) < level, rng.random(len(text))

    def typed(i: int, c: str) -> str:
        near = NEIGHBOURS.get(c, "")
        return near[int(which[i] * len(near))] if near and hit[i] else c

    return Noised.of((typed(i, c), i) for i, c in enumerate(text))


def _look_alikes(text: str, level: float, rng: np.random.Generator) -> Noised:
    hit = rng.random(len(text)) < level
    return Noised.of((LOOK_ALIKES.get(c, c) if hit[i] else c, i) for i, c in enumerate(text))


def _swaps(text: str, level: float, rng: np.random.Generator) -> Noised:
    hit = rng.random(len(text)) < level
    out, i = [], 0
    while i < len(text):
        a, b = text[i], text[i + 1 : i + 2]
        if hit[i] and a.isalpha() and b.isalpha() and a != b:
            out += [(b, i + 1), (a, i)]
            i += 2
        else:
            out.append((a, i))
            i += 1
    return Noised.of(out)


OPERATORS = (
    Operator("ant_speak", "all upper case, with a space between characters", None, _ant_speak),
    Operator("drop", "each character is left out with a chance of `level`", 0.1, _drop),
    Operator("random_case", "each character is upper or lower case, half and half", None, _random_case),
    Operator("repeat", "each character stands 2, 3 or 4 times with a chance of `level`, else once", 0.2, _repeat),
    Operator("upper_case", "all upper case", None, _upper_case),
    Operator("keyboard", "each letter of a US keyboard becomes a neighbour's with a chance of `level`", 0.1, _keyboard),
    Operator(
        "swaps",
        "two different letters beside each other change places with a chance of `level`, from left to right, each "
        "letter once at most",
        0.1,
        _swaps,
    ),
    Operator(
        "look_alikes",
        f"each of {len(LOOK_ALIKES)} Latin letters becomes the Cyrillic, Greek or IPA one that looks the same, with a "
        "chance of `level`",
        0.1,
        _look_alikes,
    ),
)
