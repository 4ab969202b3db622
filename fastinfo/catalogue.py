"""The measures between two distributions: one row each, its formulas and its properties.

Tests, laws, benchmarks and tables run over these rows. To add a measure: its terms in
`formulas.py`, a row here, an oracle in `tests/oracles.py`, a public function in `information.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, log, sqrt
from types import MappingProxyType

from fastinfo import formulas


@dataclass(frozen=True)
class Product:
    """Road of a measure Σ row(p) + Σ column(q) - factor Σ f(p) g(q), a matrix product.

    f and g are measured from their means over the rows, which row and column know as well.
    """

    f: Callable
    g: Callable
    row: Callable
    column: Callable
    factor: float = 1.0


@dataclass(frozen=True)
class Tile:
    """Road of a measure Σ row(p) + Σ column(q) + factor Σ term(p, q), a loop over all pairs.

    `prepare` makes of a bin what the loop reads, measured from the mean distribution; `uniform`
    ones from a constant, a power of 2, with the logarithm in units of the arithmetic: both go into
    the factor.
    """

    prepare: Callable
    term: Callable
    row: Callable
    factor: float
    uniform: bool = False


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
    parameters: tuple[str, ...] = ()
    symmetric: bool = False
    metric: bool = False
    upper_bound: float = inf
    has_base: bool = True
    term: Callable = field(default=formulas.kl_bin, repr=False)
    plain_term: Callable | None = field(default=None, repr=False)
    finish: Callable = field(default=formulas.same, repr=False)
    product: Product | None = field(default=None, repr=False)
    tiles: tuple[Tile, ...] = field(default=(), repr=False)

    @property
    def needs_support(self) -> bool:
        """Whether p > 0 over q = 0 makes it infinite."""
        return self.product is not None and self.product.g is formulas.log_of

    def term_for(self, normalize: bool) -> Callable:
        """Return what a bin adds; rows that are not normalised can need another formula."""
        return self.term if normalize or self.plain_term is None else self.plain_term


_JS_TILES = (
    Tile(formulas.weighted_ratio, formulas.js_tile_term, formulas.js_tile_row, -1.0, uniform=True),
    Tile(
        formulas.weighted_excess, formulas.js_centred_tile_term, formulas.js_centred_tile_row, -1.0
    ),
)
_KL_PRODUCT = Product(
    formulas.same_of, formulas.log_of, formulas.kl_row, formulas.cross_entropy_column
)
_CROSS_ENTROPY_PRODUCT = Product(
    formulas.same_of, formulas.log_of, formulas.cross_entropy_row, formulas.cross_entropy_column
)
_HELLINGER_PRODUCT = Product(
    formulas.root_of, formulas.root_of, formulas.hellinger_row, formulas.hellinger_row, 2.0
)

_ROWS = (
    Measure("cross_entropy", term=formulas.cross_entropy_term, product=_CROSS_ENTROPY_PRODUCT),
    Measure(
        "kl_divergence",
        term=formulas.kl_bin,
        plain_term=formulas.relative_entropy_term,
        product=_KL_PRODUCT,
    ),
    Measure(
        "js_divergence",
        ("weights",),
        symmetric=True,
        upper_bound=log(2.0),
        term=formulas.js_term,
        tiles=_JS_TILES,
    ),
    Measure(
        "js_distance",
        symmetric=True,
        metric=True,
        upper_bound=sqrt(log(2.0)),
        term=formulas.js_term,
        finish=formulas.root,
        tiles=_JS_TILES,
    ),
    Measure(
        "total_variation",
        symmetric=True,
        metric=True,
        upper_bound=1.0,
        has_base=False,
        term=formulas.total_variation_term,
        finish=formulas.half,
        tiles=(Tile(formulas.difference, formulas.absolute_difference, formulas.nothing, 1.0),),
    ),
    Measure(
        "hellinger_distance",
        symmetric=True,
        metric=True,
        upper_bound=1.0,
        has_base=False,
        term=formulas.hellinger_term,
        finish=formulas.root_of_half,
        product=_HELLINGER_PRODUCT,
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
    ['js_distance', 'total_variation', 'hellinger_distance']
    """
    return tuple(MEASURES.values())


@dataclass(frozen=True)
class LogitDivergence:
    """A divergence of two distributions given by logits, weight · first + (1 - weight) · second.

    `terms` are right near 0; `far_terms`, quicker, elsewhere; without these the first reading gives
    the value. `slope` is the derivative by the logits of q.
    """

    terms: Callable
    far_terms: Callable | None
    slope: Callable


LOGIT_DIVERGENCES = MappingProxyType(
    {
        "kl": LogitDivergence(formulas.kl_of_logits, None, formulas.kl_slope),
        "js": LogitDivergence(formulas.js_of_logits, formulas.js_of_far_logits, formulas.js_slope),
    }
)
