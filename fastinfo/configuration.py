"""Settings of the current context."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType

_check: ContextVar[bool] = ContextVar("check", default=False)


def checked() -> bool:
    """Whether calls on CUDA check what needs a copy to the host."""
    return _check.get()


class config:
    """Set an option for this context; as a context manager, until its end.

    Parameters
    ----------
    check : bool
        Whether calls on CUDA check what would need a copy to the host (a target out of range, a
        negative probability) and raise, instead of giving a NaN row. On the CPU they always do.

    Raises
    ------
    TypeError
        If `check` is not a bool.

    Examples
    --------
    >>> import fastinfo
    >>> with fastinfo.config(check=True):
    ...     loss = fastinfo.softmax_cross_entropy([[0.0, 0.0]], [1])
    """

    def __init__(self, *, check: bool) -> None:
        if not isinstance(check, bool):
            raise TypeError(f"check must be a bool, got {type(check).__name__}")
        self._option, self._entered = check, False
        self._tokens: list[Token[bool]] = [_check.set(check)]

    def __enter__(self) -> config:
        if self._entered:
            self._tokens.append(_check.set(self._option))
        self._entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _check.reset(self._tokens.pop())
