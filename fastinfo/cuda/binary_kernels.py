"""Binary cross-entropies on a device, element by element: losses, their sums, gradients.

Elements are in rows, which are read piece by piece, inputs and targets side by side.
"""

from functools import cache

import numpy as np

from fastinfo import formulas
from fastinfo.arrays import computed_in
from fastinfo.cuda.reduce import of_block
from fastinfo.cuda.row_kernels import SHIFT, STEP, THREADS, start_of
from fastinfo.cuda.seam import cuda, formula, helper, kernel, loader, mathematics, storer
from fastinfo.cuda.side_by_side import lanes_of, walker, wide_walker

PROBABILITIES = "probabilities"


@cache
def _element(inputs, storage, y_storage, pos, sample):
    """Loss and derivative of an input v, its target u and the weights of element k of a row.

    NaN where a target, or a probability, is outside [0, 1]; exactly 0 where the weight is 0.
    """
    result = computed_in(storage)
    probabilities = inputs == PROBABILITIES
    # the derivative by a probability cancels where that is near its target
    m_ = mathematics("float64" if probabilities else result)
    losses_of = formula(
        formulas.binary_cross_entropy_of_probability if probabilities
        else formulas.binary_cross_entropy_of_logit, m_,
    )  # fmt: skip
    kind, zero, one, nan = m_.real, m_.real(0), m_.real(1), m_.real(np.nan)
    given_back, unit = mathematics(result).real, one
    if y_storage == "float64":
        unit = np.float64(1)  # 1 less what is near it, in the digits it is given in
    nothing = given_back(0)

    @helper
    def element(v, u, k, given):
        (pos_weights, at, step, weight), (weights, own_at, own_step, share) = given
        v, u, rest = kind(v), kind(u), kind(unit - u)
        weight, share = kind(weight), kind(share)
        if pos:
            weight = kind(pos_weights[at + k * step])
        loss, slope = losses_of(v, u, rest, weight)
        if not (zero <= u and zero <= rest) or (probabilities and not zero <= v <= one):
            loss = slope = nan
        if sample:
            own = kind(weights[own_at + k * own_step])
            if own == zero:
                return nothing, nothing
            share = own / share
        return given_back(loss * share), given_back(slope * share)

    return element


def _elements(lanes, element):
    """Return each(v, u, k, given): the sum of the losses, a tuple of them, one of derivatives."""
    last = lanes - 1

    @helper
    def own(v, u, k, given):
        loss, slope = element(v[last], u[last], k + last, given)
        return loss, (loss,), (slope,)

    if lanes == 1:
        return own
    others = _elements(lanes - 1, element)

    @helper
    def each(v, u, k, given):
        total, losses, slopes = others(v, u, k, given)
        loss, own_losses, own_slopes = own(v, u, k, given)
        return total + loss, losses + own_losses, slopes + own_slopes

    return each


@cache
def losses(inputs, storage, y_storage, pos, sample, each, gradient):
    """Kernel: the sum of the losses of a piece of a row, a block each.

    With `each` the losses are written too, with `gradient` their derivatives.
    """
    real = computed_in(storage)
    element = _element(inputs, storage, y_storage, pos, sample)
    zero = mathematics(real).real(0)
    (store, store_wide), (store_real, store_real_wide) = storer(storage), storer(real)
    wide_y = loader(y_storage)[1] is not None
    lanes = lanes_of(storage, y_storage)
    elements = _elements(lanes, element)

    @helper
    def read_one(state, v, u, k, given):
        weights, (out, at, step), (values, values_at, values_step) = given
        loss, slope = element(v, u, k, weights)
        if each:
            store_real(values, values_at + k * values_step, loss)
        if gradient:
            store(out, at + k * step, slope)
        return state + loss

    @helper
    def read_wide(state, v, u, k, given):
        weights, (out, at, _), (values, values_at, _) = given
        total, found, slopes = elements(v, u, k, weights)
        if each:
            store_real_wide(values, values_at + k, found)
        if gradient:
            store_wide(out, at + k, slopes)
        return state + total

    walk = walker(storage, y_storage, read_one, THREADS)
    walk_wide = wide_walker(storage, y_storage, read_one, read_wide) if wide_y else walk
    added = of_block(helper(lambda s, t, given: (s[0] + t[0],)), 1, 0, THREADS, real)

    @helper
    def alike(start, place, x_start, x_place):
        """Whether a vector of `lanes` begins where one of the inputs does."""
        return place[STEP] == 1 and (start + place[SHIFT] - x_start - x_place[SHIFT]) % lanes == 0

    @kernel
    def read_and_write(
        x, x_starts, x_place, y, y_starts, y_place, pos, pos_starts, pos_place, sample,
        sample_starts, sample_place, values, values_starts, values_place, out, out_starts,
        out_place, width, length, pieces, pos_number, number, divisor, sums,
    ):  # fmt: skip
        i, begin = cuda.blockIdx.x // pieces, cuda.blockIdx.x % pieces * length
        end = min(begin + length, width)
        x_start, y_start = start_of(x_starts, x_place, i), start_of(y_starts, y_place, i)
        out_start = start_of(out_starts, out_place, i)
        values_start = start_of(values_starts, values_place, i)
        share = divisor[0] if sample.size else number
        weights = (
            (pos, start_of(pos_starts, pos_place, i), pos_place[STEP], pos_number),
            (sample, start_of(sample_starts, sample_place, i), sample_place[STEP], share),
        )
        given = (
            weights, (out, out_start, out_place[STEP]),
            (values, values_start, values_place[STEP]),
        )  # fmt: skip
        may = not gradient or alike(out_start, out_place, x_start, x_place)
        if may and (not each or alike(values_start, values_place, x_start, x_place)):
            total = walk_wide(x, x_start, x_place, y, y_start, y_place, begin, end, zero, given)
        else:
            total = walk(x, x_start, x_place, y, y_start, y_place, begin, end, zero, given)
        total = added((total,), 0)[0]
        if cuda.threadIdx.x == 0:
            sums[cuda.blockIdx.x] = total

    return read_and_write
