"""The measures between two distributions: one row each, its formulas and its properties.

Tests, laws, benchmarks and tables run over these rows. To add a measure: its terms in
`formulas.py`, a row here, an oracle in `tests/oracles.py`, a public function in `information.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf, log, sqrt
from types import MappingProxyType
from typing import Any

from fastinfo import formulas


@dataclass(frozen=True)
class Quick:
    """A term for vectors, of shares that are rounded, where what it says has a size of `least`.

    That is of float32 and of float64 results, times `doubt` of the parameter. With `wide`, vectors
    are of float64 whatever the result is. `says` is that of the sum unless it is given.
    """

    term: Callable[..., Any]
    least: tuple[float, float]
    wide: bool = True
    doubt: Callable[..., Any] = formulas.no_doubt
    says: Callable[..., Any] | None = None


@dataclass(frozen=True)
class Sum:
    """What the bins of two rows add up to, and what that says, in nats.

    With `largest` the largest term counts instead of their sum. `overflows` tells that a sum of
    powers may be infinite where the result is not, see `formulas.lowered_power_term`. Below `least`
    the sum has lost digits that `far` has, or those lowered powers. `quick` is exact enough unless
    rows are nearly equal.
    """

    term: Callable[..., Any]
    says: Callable[..., Any] = formulas.itself
    largest: bool = False
    overflows: bool = False
    far: Sum | None = None
    least: float = -0.5
    quick: Quick | None = None


@dataclass(frozen=True)
class Product:
    """Road of a measure Σ row(p) + Σ column(q) - factor Σ f(p) g(q), a matrix product.

    f and g know a weight of the bin, made of the mean over the rows. They are measured from their
    values at that mean, which row and column know as well: of each side's own rows, or of all with
    `shared`; or, with `plain`, from 0. With `turned` Σ g(p) f(q) comes as well, in the same
    product. `margin` is how much of a sum counts. Rows of a `square` road are sums of squares near
    the mean: what is rounded in a bin counts by its distance from it.
    """

    f: Callable[..., Any]
    g: Callable[..., Any]
    row: Callable[..., Any] = formulas.no_row
    column: Callable[..., Any] = formulas.no_row
    factor: float = 1.0
    says: Callable[..., Any] = formulas.itself
    margin: Callable[..., Any] = formulas.whole_margin
    shared: bool = False
    plain: bool = False
    turned: bool = False
    weight: Callable[..., Any] = formulas.unweighted
    square: bool = False


@dataclass(frozen=True)
class Tile:
    """Road of a measure Σ row(p) + Σ column(q) + factor Σ term(p, q), a loop over all pairs.

    `prepare` makes of a bin what the loop reads, measured from the mean distribution; `uniform`
    ones from a constant, a power of 2, with the logarithm in units of the arithmetic: both go into
    the factor.
    """

    prepare: Callable[..., Any]
    term: Callable[..., Any]
    row: Callable[..., Any]
    factor: float
    uniform: bool = False


@dataclass(frozen=True)
class Shared:
    """Road of a measure of sparse rows: Σ row(p) + Σ column(q), and a term of bins both fill.

    The term is given f and f2 of p, g and g2 of q.
    """

    term: Callable[..., Any]
    f: Callable[..., Any]
    g: Callable[..., Any]
    f2: Callable[..., Any] = formulas.nothing_of
    g2: Callable[..., Any] = formulas.nothing_of
    row: Callable[..., Any] = formulas.nothing_of
    column: Callable[..., Any] = formulas.nothing_of
    says: Callable[..., Any] = formulas.itself
    margin: Callable[..., Any] = formulas.whole_margin


@dataclass(frozen=True)
class Measure:
    """A measure between two distributions.

    Attributes
    ----------
    name : str
        Its public function, and its name in `pairwise`.
    parameters : tuple of str
        Names of its parameters.
    symmetric : bool
        Whether D(p, q) = D(q, p), with the default parameters.
    metric : bool
        Whether the triangle inequality holds.
    upper_bound : float
        Largest value, in nats; inf if there is none.
    has_base : bool
        Whether `base` divides it by a logarithm.
    """

    name: str
    total: Sum = field(repr=False)
    parameters: tuple[str, ...] = ()
    symmetric: bool = False
    metric: bool = False
    upper_bound: float = inf
    has_base: bool = True
    plain_total: Sum | None = field(default=None, repr=False)
    finish: Callable[..., Any] = field(default=formulas.same, repr=False)
    products: tuple[Product, ...] = field(default=(), repr=False)
    plain_products: tuple[Product, ...] | None = field(default=None, repr=False)
    tiles: tuple[Tile, ...] = field(default=(), repr=False)
    shared: Shared | None = field(default=None, repr=False)
    # What is infinite: a bin of p over none of q, or of either over none of the other.
    infinite: str = field(default="", repr=False)
    # Whether ln 2 · h² ≤ D ≤ h² in nats before the finish, h the Hellinger distance.
    bounded_by_hellinger: bool = field(default=False, repr=False)
    form: Callable[[Measure, float], Measure] | None = field(default=None, repr=False)

    def total_for(self, normalize: bool) -> Sum:
        """Return what bins add up to; rows that are not normalised can need another formula.

        Quick terms have errors of a size that is known for distributions only.
        """
        return self.total if normalize else replace(self.plain_total or self.total, quick=None)

    def at(self, parameter: float, normalize: bool = True) -> Measure:
        """Return the row for one value of the parameter.

        A product of powers is right where their sum is at least 1, or no power of it may vanish.
        """
        row = self if self.form is None else self.form(self, parameter)
        if row.plain_products is not None and not normalize:
            row = replace(row, products=row.plain_products)
        return replace(row, products=()) if row.total.overflows and not normalize else row


_JS_TILES = (
    Tile(formulas.weighted_ratio, formulas.js_tile_term, formulas.js_tile_row, -1.0, uniform=True),
    Tile(
        formulas.weighted_excess, formulas.js_centred_tile_term, formulas.js_centred_tile_row, -1.0
    ),
)
_CROSS_ENTROPY_PRODUCT = Product(
    formulas.share_of,
    formulas.weighted_log_of,
    formulas.cross_entropy_row,
    formulas.cross_entropy_column,
    weight=formulas.root_weight,
)
_KL_PRODUCT = replace(
    _CROSS_ENTROPY_PRODUCT, row=formulas.kl_row, column=formulas.kl_column, shared=True, square=True
)
_PLAIN_KL_PRODUCT = replace(_CROSS_ENTROPY_PRODUCT, row=formulas.plain_kl_row)
_JEFFREYS_PRODUCT = Product(
    formulas.share_of,
    formulas.weighted_log_of,
    formulas.jeffreys_row,
    formulas.jeffreys_row,
    shared=True,
    turned=True,
    weight=formulas.root_weight,
    square=True,
)
_HELLINGER_PRODUCT = Product(
    formulas.root_of,
    formulas.root_of,
    formulas.hellinger_row,
    formulas.hellinger_row,
    2.0,
    shared=True,
    square=True,
)


def _power_products(
    says: Callable[..., Any],
    says_of_excess: Callable[..., Any],
    f: Callable[..., Any],
    g: Callable[..., Any],
) -> tuple[Any, ...]:
    """Roads of measures of Σ p^α q^(1 - α): of rows far apart, and of rows near each other."""
    far = Product(
        f, g, factor=-1.0, says=says, margin=formulas.log_margin, shared=True, plain=True,
        weight=formulas.power_weight,
    )  # fmt: skip
    near = Product(
        f, g, formulas.power_row, formulas.power_column, -1.0, says_of_excess,
        formulas.log1p_margin, shared=True, weight=formulas.power_weight, square=True,
    )  # fmt: skip
    return far, near


# Below, a sum of powers may be of subnormal numbers, which lack digits.
_TINY = 2.0**-900
# Relative errors of a sum of such terms are twice the roundoff over its root.
_JS_QUICK = Quick(formulas.js_near_term, (1e-4, 1e-6), wide=False)
# Errors are some units of float64's roundoff times logarithms of shares, in all that is asked for.
# What a product leaves of float64 results of KL is smaller.
_KL_QUICK = Quick(formulas.kl_quick_term, (4e-9, inf))
_JEFFREYS_QUICK = Quick(formulas.jeffreys_quick_term, (4e-9, inf))
_RENYI_QUICK = Quick(formulas.renyi_quick_term, (4e-9, 0.08), doubt=formulas.renyi_doubt)
_RATIO_QUICK = Quick(formulas.ratio_quick_term, (1e-9, 1e-3), says=formulas.log_of)

_ITSELF, _LOG = formulas.itself_of, formulas.natural_log_of
_JS_SHARED = Shared(
    formulas.js_shared,
    formulas.first_weighted,
    formulas.second_weighted,
    formulas.first_weighted_entropy,
    formulas.second_weighted_entropy,
    formulas.js_alone,
    formulas.js_other_alone,
)
_CROSS_ENTROPY_SHARED = Shared(formulas.negative_product_shared, _ITSELF, _LOG)
_KL_SHARED = replace(_CROSS_ENTROPY_SHARED, row=formulas.negative_entropy_of)
_JEFFREYS_SHARED = Shared(formulas.jeffreys_shared, _ITSELF, _ITSELF, _LOG, _LOG)
_VARIATION_SHARED = Shared(formulas.least_shared, _ITSELF, _ITSELF, row=_ITSELF, column=_ITSELF)
_HELLINGER_SHARED = Shared(
    formulas.twice_negative_product_shared,
    formulas.square_root_of,
    formulas.square_root_of,
    row=_ITSELF,
    column=_ITSELF,
)
_POWERS_SHARED = Shared(
    formulas.product_shared,
    formulas.power_alone,
    formulas.other_power_alone,
    says=formulas.renyi_of_powers,
    margin=formulas.log_margin,
)


def _js_form(row: Measure, weight: float) -> Measure:
    if weight == 0.5:
        return row
    far, near = row.tiles
    tiles = far, replace(near, term=formulas.js_centred_tile_term_of_weights)
    total = replace(row.total, quick=replace(_JS_QUICK, term=formulas.js_near_term_of_weights))
    return replace(row, total=total, tiles=tiles, symmetric=False, bounded_by_hellinger=False)


def _renyi_form(row: Measure, alpha: float) -> Measure:
    """Rényi's divergence is another sum at 0, 1 and infinity, and symmetric at ½."""
    if alpha == 1.0:
        kl = MEASURES["kl_divergence"]
        return replace(kl, name=row.name)
    if alpha == inf:
        plain = Sum(formulas.log_ratio_term, largest=True, quick=_RATIO_QUICK)
        total = replace(plain, says=formulas.at_least_0)
        unknown = Shared(formulas.nothing_shared, _ITSELF, _ITSELF)
        return replace(
            row, total=total, plain_total=plain, products=(), shared=unknown, infinite="first"
        )
    if alpha == 0.0:
        plain = Sum(formulas.inside_term, formulas.renyi_of_powers)
        total = Sum(formulas.renyi_term, formulas.renyi_of_excess, far=plain)
        shared = replace(_POWERS_SHARED, f=formulas.one_of, g=_ITSELF)
        return replace(row, total=total, plain_total=plain, products=(), shared=shared)
    if abs(alpha - 1.0) < 0.05:
        row = replace(row, products=())
    if alpha == 0.5:
        half = formulas.half_power_of
        products = tuple(replace(road, f=half, g=half) for road in row.products)
        total = replace(row.total, term=formulas.half_renyi_term, quick=None)
        return replace(row, symmetric=True, products=products, total=total)
    if alpha < 1.0:
        return row
    if alpha == 2.0:  # no logarithm and exponential a bin
        products = tuple(
            replace(
                road, f=formulas.square_of, g=formulas.inverse_of,
                weight=formulas.three_halves_weight,
            )
            for road in row.products
        )  # fmt: skip
        row = replace(row, products=products)
    total, plain = (
        replace(row.total, far=None, overflows=True),
        Sum(formulas.power_term, formulas.renyi_of_powers, overflows=True, least=_TINY),
    )
    return replace(row, total=total, plain_total=plain, infinite="first")


_JS_SUM = Sum(formulas.js_term, quick=_JS_QUICK)
_LIFTED_POWERS = Sum(formulas.lifted_power_term, formulas.renyi_of_lifted_powers)
_LIFTED_ROOTS = Sum(formulas.lifted_power_term, formulas.bhattacharyya_of_lifted_powers)
_POWERS = Sum(formulas.power_term, formulas.renyi_of_powers, far=_LIFTED_POWERS, least=_TINY)
_ROOTS = Sum(formulas.power_term, formulas.bhattacharyya_of_powers, far=_LIFTED_ROOTS, least=_TINY)
_ROWS = (
    Measure(
        "cross_entropy",
        total=Sum(formulas.cross_entropy_term),
        products=(_CROSS_ENTROPY_PRODUCT,),
        infinite="first",
        shared=_CROSS_ENTROPY_SHARED,
    ),
    Measure(
        "kl_divergence",
        total=Sum(formulas.kl_bin, quick=_KL_QUICK),
        plain_total=Sum(formulas.relative_entropy_term),
        products=(_KL_PRODUCT,),
        plain_products=(_PLAIN_KL_PRODUCT,),
        infinite="first",
        shared=_KL_SHARED,
    ),
    Measure(
        "js_divergence",
        parameters=("weights",),
        symmetric=True,
        upper_bound=log(2.0),
        total=_JS_SUM,
        bounded_by_hellinger=True,
        tiles=_JS_TILES,
        form=_js_form,
        shared=_JS_SHARED,
    ),
    Measure(
        "js_distance",
        symmetric=True,
        metric=True,
        upper_bound=sqrt(log(2.0)),
        total=_JS_SUM,
        bounded_by_hellinger=True,
        finish=formulas.root,
        tiles=_JS_TILES,
        shared=_JS_SHARED,
    ),
    Measure(
        "jeffreys_divergence",
        symmetric=True,
        total=Sum(formulas.jeffreys_term, quick=_JEFFREYS_QUICK),
        products=(_JEFFREYS_PRODUCT,),
        infinite="both",
        shared=_JEFFREYS_SHARED,
    ),
    Measure(
        "renyi_divergence",
        parameters=("alpha",),
        total=Sum(formulas.renyi_term, formulas.renyi_of_excess, far=_POWERS, quick=_RENYI_QUICK),
        plain_total=_POWERS,
        products=_power_products(
            formulas.renyi_of_powers,
            formulas.renyi_of_excess,
            formulas.power_of,
            formulas.other_power_of,
        ),
        form=_renyi_form,
        shared=_POWERS_SHARED,
    ),
    Measure(
        "hellinger_distance",
        symmetric=True,
        metric=True,
        upper_bound=1.0,
        has_base=False,
        total=Sum(formulas.hellinger_term),
        finish=formulas.root_of_half,
        products=(_HELLINGER_PRODUCT,),
        shared=_HELLINGER_SHARED,
    ),
    Measure(
        "bhattacharyya_distance",
        symmetric=True,
        total=Sum(formulas.half_renyi_term, formulas.bhattacharyya_of_excess, far=_ROOTS),
        plain_total=_ROOTS,
        products=_power_products(
            formulas.bhattacharyya_of_powers,
            formulas.bhattacharyya_of_excess,
            formulas.half_power_of,
            formulas.half_power_of,
        ),
        shared=replace(_POWERS_SHARED, says=formulas.bhattacharyya_of_powers),
    ),
    Measure(
        "total_variation",
        symmetric=True,
        metric=True,
        upper_bound=1.0,
        has_base=False,
        total=Sum(formulas.total_variation_term),
        finish=formulas.half,
        tiles=(Tile(formulas.difference, formulas.absolute_difference, formulas.nothing, 1.0),),
        shared=_VARIATION_SHARED,
    ),
)

MEASURES = MappingProxyType({row.name: row for row in _ROWS})


def measures() -> tuple[Measure, ...]:
    """Return the measures of two distributions with their properties.

    Returns
    -------
    tuple of Measure
        Frozen dataclasses.

    Examples
    --------
    >>> import fastinfo
    >>> [m.name for m in fastinfo.measures() if m.metric]
    ['js_distance', 'hellinger_distance', 'total_variation']
    """
    return tuple(MEASURES.values())


@dataclass(frozen=True)
class LogitDivergence:
    """A divergence of two distributions given by logits, weight · first + (1 - weight) · second.

    `terms` are right near 0; `far_terms`, quicker, elsewhere; without these the first reading gives
    the value. `slope` is the derivative by the logits of q.
    """

    terms: Callable[..., Any]
    far_terms: Callable[..., Any] | None
    slope: Callable[..., Any]


LOGIT_DIVERGENCES = MappingProxyType(
    {
        "kl": LogitDivergence(formulas.kl_of_logits, None, formulas.kl_slope),
        "js": LogitDivergence(formulas.js_of_logits, formulas.js_of_far_logits, formulas.js_slope),
    }
)
