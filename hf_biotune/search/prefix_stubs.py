"""Stubs: modules whose calls are watched, or answered without computing anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

Calls = Mapping[str, tuple[bool, ...]]
"""For each module, which of its calls in a forward pass are stubs."""


class StubbedCalls:
    """While it lasts, some calls of modules are watched, or answered by somebody else.

    It replaces `forward` of the modules in question; hooks on them run as always. Several can be
    nested, with others inside.

    Args:
        model: that the modules are in.
        calls: which calls.
        after: gets the number of the call, from 0, and what the module put out, and gives what its
            caller gets.
        instead: gets the number of the call and gives what its caller gets; the module is not run.
            Exactly one of `after` and `instead` is given.
    """

    def __init__(
        self,
        model: nn.Module,
        calls: Calls,
        *,
        after: Callable[[int, Any], Any] | None = None,
        instead: Callable[[int], Any] | None = None,
    ) -> None:
        self._modules = [(model.get_submodule(name), flags) for name, flags in calls.items()]
        self._after = after
        self._instead = instead

    def __enter__(self) -> StubbedCalls:
        self._number = 0
        self._is_inside = False
        self._replaced = [(module, module.__dict__.get("forward")) for module, _ in self._modules]
        for module, flags in self._modules:
            # Past `nn.Module.__setattr__`, which takes its time.
            module.__dict__["forward"] = self._stub(module.forward, flags)
        return self

    def __exit__(self, *exc: object) -> None:
        for module, forward in self._replaced:
            if forward is None:
                del module.__dict__["forward"]
            else:
                module.__dict__["forward"] = forward

    def _stub(self, forward: Callable[..., Any], flags: tuple[bool, ...]) -> Callable[..., Any]:
        stub = self._answer if self._instead is not None else self._watch
        if all(flags) and self._instead is not None:
            return lambda *args, **kwargs: self._answer(forward, args, kwargs)
        calls = iter(flags)

        def counted(*args: Any, **kwargs: Any) -> Any:
            # Calls inside of a stub's own module don't happen when it is answered.
            if self._is_inside or not next(calls, False):
                return forward(*args, **kwargs)
            return stub(forward, args, kwargs)

        return counted

    def _watch(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        assert self._after is not None
        self._is_inside = True
        try:
            output = forward(*args, **kwargs)
        finally:
            self._is_inside = False
        self._number += 1
        return self._after(self._number - 1, output)

    def _answer(self, forward: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        assert self._instead is not None
        self._number += 1
        return self._instead(self._number - 1)
