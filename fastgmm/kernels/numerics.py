"""exp and log of vectors, and a counter-based random number.

Numba has no vector math library any more: ``math.exp`` in a kernel is a scalar call into libm, 5.6 ns on one core of an
AMD EPYC 9004 (Zen 4). The polynomials below take 0.6 ns an element there with AVX-512, NumPy's exp 0.9 ns. They use no
conversion between floating-point and whole numbers, which AVX2 lacks for float64: a whole number is added to the bits
of a large constant instead.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from .runtime import exact_leaf
from .simd import DOUBLE, Emitter, Vector

LOG2_E = 1.4426950408889634


class _Exp(NamedTuple):
    """Constants of exp: ``x = k ln 2 + r``, ``exp r = 1 + r + r^2 p(r)`` on ``|r| <= ln(2) / 2``, scaled by 2^k."""

    # Adding it rounds to a whole number, which is then in the low bits.
    magic: float
    # ln 2 in two words; the first ends in zero bits, so that its products with k are exact.
    ln2: tuple[float, float]
    # 0 below this: products with anything smaller would be subnormal, which some CPUs compute 100 times slower.
    underflow: float
    bias: int
    mantissa_bits: int
    # Chebyshev fits; the highest power first.
    coefficients: tuple[float, ...]


EXP_FLOAT64 = _Exp(
    1.5 * 2.0**52,
    (6.93145751953125e-1, 1.42860682030941723212e-6),
    -680.0,
    1023,
    52,
    (  # relative error 1.7e-17
        2.5100375832561234e-08, 2.7620075879983367e-07, 2.7557268480310024e-06, 2.4801521322368692e-05,
        0.00019841269863040545, 0.0013888888917196719, 0.008333333333330065, 0.041666666666624164,
        0.16666666666666669, 0.5, 1.0, 1.0,
    ),
)  # fmt: skip
EXP_FLOAT32 = _Exp(
    1.5 * 2.0**23,
    (0.693359375, -2.12194440e-4),
    -75.0,
    127,
    23,
    (0.001392617611993558, 0.008363173074513711, 0.041666554662050534, 0.1666657702559799, 0.5, 1.0, 1.0),  # 1e-8
)


def exp(e: Emitter, x: Vector) -> Vector:
    """exp(x) for ``x <= 0``; exactly 0 below -680 (float32: -75), NaN for NaN. Relative error 3e-16 (float32: 2e-7)."""
    t = EXP_FLOAT64 if e.scalar is DOUBLE else EXP_FLOAT32
    rounded = e.fma(x, e.constant(LOG2_E), e.constant(t.magic))
    k = rounded - e.constant(t.magic)
    r = e.fma(k, e.constant(-t.ln2[1]), e.fma(k, e.constant(-t.ln2[0]), x))
    p = e.constant(t.coefficients[0])
    for coefficient in t.coefficients[1:]:
        p = e.fma(p, r, e.constant(coefficient))
    b = e.builder
    biased = b.add(e.bits(rounded), e.integers(t.bias))
    scale = e.from_bits(b.shl(biased, e.integers(t.mantissa_bits)))
    return e.choose(x < e.constant(t.underflow), e.constant(0.0), p * scale)


class _Log(NamedTuple):
    """Constants of log: ``x = 2^k m``, ``log m = 2 artanh f``, ``f = (m - 1) / (m + 1)``, ``2 f + f^3 p(f^2)``."""

    mantissa_bits: int
    mantissa: int
    half: int
    # A power of two whose unit is one, and its bits: the exponent is put into its low bits.
    unit: float
    unit_bits: int
    bias: float
    ln2: tuple[float, float]
    coefficients: tuple[float, ...]


LOG_FLOAT64 = _Log(
    52, 0x000FFFFFFFFFFFFF, 0x3FE0000000000000, 2.0**52, 0x4330000000000000, 1022.0, EXP_FLOAT64.ln2,
    (  # relative error 5e-18
        0.14616449685043406, 0.15331721600556042, 0.18182889125261723, 0.2222221113479508, 0.28571428625975487,
        0.39999999999899505, 0.666666666666667,
    ),
)  # fmt: skip
LOG_FLOAT32 = _Log(
    23, 0x007FFFFF, 0x3F000000, 2.0**23, 0x4B000000, 126.0, EXP_FLOAT32.ln2,
    (0.2957994939197279, 0.3998878056602198, 0.6666668503957586),  # 3e-9
)  # fmt: skip


def log(e: Emitter, x: Vector) -> Vector:
    """log(x) for finite normal ``x > 0``; NaN for NaN. Relative error 4e-16 (float32: 3e-7)."""
    t = LOG_FLOAT64 if e.scalar is DOUBLE else LOG_FLOAT32
    b, bits = e.builder, e.bits(x)
    exponent = b.lshr(bits, e.integers(t.mantissa_bits))
    k = e.from_bits(b.or_(exponent, e.integers(t.unit_bits))) - e.constant(t.unit + t.bias)
    m = e.from_bits(b.or_(b.and_(bits, e.integers(t.mantissa)), e.integers(t.half)))
    low = m < e.constant(math.sqrt(0.5))
    m, k = e.choose(low, m + m, m), e.choose(low, k - e.constant(1.0), k)
    f = (m - e.constant(1.0)) / (m + e.constant(1.0))
    s = f * f
    p = e.constant(t.coefficients[0])
    for coefficient in t.coefficients[1:]:
        p = e.fma(p, s, e.constant(coefficient))
    small = e.fma(k, e.constant(t.ln2[1]), f * s * p)
    result = e.fma(k, e.constant(t.ln2[0]), e.fma(f, e.constant(2.0), small))
    return e.choose(x == x, result, x)


@exact_leaf
def mix64(z):
    """SplitMix64's output function (Steele, Lea & Flood 2014): a bijection of 64-bit words that looks random."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@exact_leaf
def uniform(word):
    """A float64 in (0, 1) from the upper 53 bits of a 64-bit word."""
    return (np.float64(word >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)
