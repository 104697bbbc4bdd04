"""Vectorised exp and log, and a counter-based random number generator.

Numba has no vector math library: ``math.exp`` in a kernel is a scalar call into libm, 5.6 ns on one core of an AMD EPYC
9004 (Zen 4), where the exp below takes 0.37 ns per element. AVX2 has no conversion between float64 and integers, so an
integer is added to the bits of a large constant instead. Flops: 7 to 13 multiply-adds per exponential, 8 to 12 and
one division per logarithm. Cache: registers only.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from fastgmm.kernels.compiler.runtime import exact_leaf
from fastgmm.kernels.compiler.simd import DOUBLE, VECTOR_BITS, Emitter, Vector

LOG2_E = 1.4426950408889634


class _Exp(NamedTuple):
    """Constants of exp.

    ``exp x = 2^(k / parts) 2^(f / parts)``, with ``parts x / ln 2 = k + f`` and ``|f| <= 1/2``.
    """

    # Adding it to a number rounds this to an integer, which is then in the low bits.
    magic: float
    # The result is 0 below this: smaller factors give subnormal products, which some CPUs compute 100 times slower.
    underflow: float
    mantissa_bits: int
    # Polynomial for 2^(f / parts) of least relative error with 2^0 = 1 (Remez), highest power first.
    coefficients: tuple[float, ...]
    # Powers 2^(j / parts) in the table: 1 (no table), or the numbers that two registers hold.
    parts: int = 1

    @property
    def first_bit(self) -> int:
        """The bit at which k is added, so that powers of 2 reach the exponent."""
        return self.mantissa_bits - (self.parts.bit_length() - 1)


EXP_FLOAT64 = _Exp(
    1.5 * 2.0**52,
    -680.0,
    52,
    (  # relative error 1.8e-17
        4.0780717860928705e-10, 7.072570394540799e-09, 1.0180647660573069e-07, 1.3215442675452854e-06,
        1.5252727385189775e-05, 0.0001540353044157185, 0.001333355815343997, 0.009618129107607003,
        0.05550410866479039, 0.24022650695910097, 0.6931471805599457, 1.0,
    ),
)  # fmt: skip
EXP_BY_TABLE = EXP_FLOAT64._replace(
    coefficients=(  # relative error 7e-18
        9.181111026621392e-12, 1.2716120268329257e-09, 1.4676100329882918e-07, 1.3550807776399796e-05,
        0.0009383847928089807, 0.04332169878499668, 1.0,
    ),
    parts=16,
)  # fmt: skip
EXP_FLOAT32 = _Exp(
    1.5 * 2.0**23,
    -75.0,
    23,
    (  # relative error 3e-9
        0.00015594676369801164, 0.0013406643411144614, 0.009617692790925503, 0.055503103882074356,
        0.24022652208805084, 0.6931472420692444, 1.0,
    ),
)  # fmt: skip


def exp(e: Emitter, x: Vector, power: float = 1.0) -> Vector:
    """Return ``exp(power x)`` for ``x <= 0``.

    The result is exactly 0 if ``power x`` is below -680 (float32: -75) or NaN.

    ``x / ln 2`` is not rounded before k is subtracted from it. The relative error is 3e-16 + 2e-17 abs(x) (float32:
    2e-7 + 2e-8 abs(x)), which is below the effect of the rounding of x itself.

    With AVX-512 and float64, sixteen powers of 2 are looked up in two registers, and the polynomial is half as long.
    """
    t = EXP_FLOAT32 if e.scalar is not DOUBLE else EXP_BY_TABLE if VECTOR_BITS == 512 else EXP_FLOAT64
    log2 = e.constant(t.parts * power * LOG2_E)
    rounded = e.fma(x, log2, e.constant(t.magic))
    f = e.fma(x, log2, e.constant(t.magic) - rounded)
    p = e.constant(t.coefficients[0])
    for coefficient in t.coefficients[1:-1]:
        p = e.fma(p, f, e.constant(coefficient))
    k = e.bits(rounded)
    exponent = e.builder.shl(k, e.integers(t.first_bit))
    if t.parts == 1:
        p = e.fma(p, f, e.constant(1.0))
        scaled = e.from_bits(e.builder.add(e.bits(p), exponent))
    else:
        # Minus the low bits of k, the entry's index, which are added with the exponent.
        table = [int(np.float64(2.0 ** (j / t.parts)).view(np.int64)) - (j << t.first_bit) for j in range(t.parts)]
        unit = e.from_bits(e.builder.add(e.look_up(table, k), exponent))
        scaled = e.fma(unit, p * f, unit)
    return e.select(e.constant(t.underflow / power) < x, scaled, e.constant(0.0))


class _Log(NamedTuple):
    """Constants of log.

    ``x = 2^k m``, ``log m = 2 artanh f``, ``f = (m - 1) / (m + 1)``, ``2 artanh f = 2 f + f^3 p(f^2)``.
    """

    mantissa_bits: int
    mantissa: int
    half: int
    # A power of two whose last bit has the value 1, and its bits: the exponent is put into the low bits.
    unit: float
    unit_bits: int
    bias: float
    # ln 2 as a sum of two numbers; the first ends in zero bits, so that its products with k are exact.
    ln2: tuple[float, float]
    coefficients: tuple[float, ...]


LOG_FLOAT64 = _Log(
    52, 0x000FFFFFFFFFFFFF, 0x3FE0000000000000, 2.0**52, 0x4330000000000000, 1022.0,
    (6.93145751953125e-1, 1.42860682030941723212e-6),
    (  # relative error 5e-18
        0.14616449685043406, 0.15331721600556042, 0.18182889125261723, 0.2222221113479508, 0.28571428625975487,
        0.39999999999899505, 0.666666666666667,
    ),
)  # fmt: skip
LOG_FLOAT32 = _Log(
    23, 0x007FFFFF, 0x3F000000, 2.0**23, 0x4B000000, 126.0, (0.693359375, -2.12194440e-4),
    (0.2957994939197279, 0.3998878056602198, 0.6666668503957586),  # 3e-9
)  # fmt: skip


def log(e: Emitter, x: Vector) -> Vector:
    """Return ``log(x)`` for finite normal ``x > 0``, NaN for NaN.

    The relative error is 4e-16 (float32: 3e-7).
    """
    t = LOG_FLOAT64 if e.scalar is DOUBLE else LOG_FLOAT32
    b, bits = e.builder, e.bits(x)
    exponent = b.lshr(bits, e.integers(t.mantissa_bits))
    k = e.from_bits(b.or_(exponent, e.integers(t.unit_bits))) - e.constant(t.unit + t.bias)
    m = e.from_bits(b.or_(b.and_(bits, e.integers(t.mantissa)), e.integers(t.half)))
    low = m < e.constant(math.sqrt(0.5))
    m, k = e.select(low, m + m, m), e.select(low, k - e.constant(1.0), k)
    f = (m - e.constant(1.0)) / (m + e.constant(1.0))
    s = f * f
    p = e.constant(t.coefficients[0])
    for coefficient in t.coefficients[1:]:
        p = e.fma(p, s, e.constant(coefficient))
    small = e.fma(k, e.constant(t.ln2[1]), f * s * p)
    result = e.fma(k, e.constant(t.ln2[0]), e.fma(f, e.constant(2.0), small))
    return e.select(x == x, result, x)


@exact_leaf
def mix64(z):
    """Return SplitMix64's output function of a word, a bijection of 64-bit words.

    Steele, Lea & Flood, 2014, "Fast splittable pseudorandom number generators".
    """
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@exact_leaf
def uniform(word):
    """Return a float64 in (0, 1) made of the upper 53 bits of a 64-bit word."""
    return (np.float64(word >> np.uint64(11)) + 0.5) * (1.0 / 9007199254740992.0)
