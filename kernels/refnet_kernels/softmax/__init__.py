"""Softmax over the last axis (rule A6). TF-Slim: ``slim.softmax``, the end point ``predictions``.

In binary64, each operation rounded, no fma:

1. ``m = -inf``; then for each logit v, in order, ``m = v if v > m else m``.
2. ``e = exp(v - m)``:

   - NaN gives NaN; less than -708 gives 0;
   - else ``k = floor(d * LOG2_E + 0.5)``, ``r = (d - k * LN2_HIGH) - k * LN2_LOW``,
     ``p`` the Taylor polynomial of degree 13 at r by Horner's rule, and ``e = p * 2^k``, which is exact.

3. The sum of all e, in order, from +0.
4. ``e / sum``, rounded to the dtype.

The exp is within 2 units in the last place of binary64. Input: float32 or float64 [..., classes]; output the same.
"""

import math

LOG2_E = float.fromhex("0x1.71547652b82fep+0")
#: ln 2 in two parts; the first has 32 significant bits, so that its product with k is exact.
LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
#: Below this the power is 0: that is far below what binary32 can hold, and the power of two is never subnormal.
UNDERFLOW = -708.0
#: 1 / n! for n = 13 down to 0, each rounded to binary64.
COEFFICIENTS = tuple(1 / math.factorial(n) for n in range(13, -1, -1))
