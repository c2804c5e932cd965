"""PEFT's own loaders open our checkpoints, once `import hf_biotune` has run.

Importing the package must load neither torch nor PEFT, so PEFT gets to know us when it is imported
itself: by a finder on `sys.meta_path` that runs a hook after the import, and then goes.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

PACKAGE = __name__.partition(".")[0]


def register_when_peft_is_imported() -> None:
    """Register with PEFT now if it is there already, else as soon as it has been imported."""
    if any(isinstance(finder, _PostImportFinder) for finder in sys.meta_path):
        return
    if "peft" in sys.modules:
        _import_model()
    else:
        sys.meta_path.insert(0, _PostImportFinder("peft", PACKAGE, _import_model))


def _import_model() -> None:
    # It registers at its end; see `register_classes`.
    importlib.import_module(f"{PACKAGE}.model")


def register_classes(config_class: type, tuner_class: Any, model_class: type) -> None:
    """Let PEFT know `peft_type: BIOTUNE`.

    Args:
        config_class: for `PeftConfig.from_pretrained` and its like.
        tuner_class: for `inject_adapter_in_model`, which `model.load_adapter` of transformers uses.
        model_class: what `PeftModel` and its sub-classes make of such a configuration, whatever its
            task type: `PeftModel.from_pretrained`, `AutoPeftModel...` and `get_peft_model` all
            call the class. PEFT's table of model classes goes by the task type alone, and so could
            not tell our adapters from others.
    """
    import peft.mapping
    from peft import PeftModel

    name = "BIOTUNE"
    peft.mapping.PEFT_TYPE_TO_CONFIG_MAPPING[name] = config_class
    peft.mapping.PEFT_TYPE_TO_TUNER_MAPPING[name] = tuner_class
    peft.mapping.PEFT_TYPE_TO_PREFIX_MAPPING[name] = tuner_class.prefix
    previous = PeftModel.__new__
    if getattr(previous, "is_of_biotune", False):
        return

    def new(cls: type, *args: Any, **kwargs: Any) -> Any:
        config = kwargs.get("peft_config", args[1] if len(args) > 1 else None)
        if issubclass(cls, model_class) or not isinstance(config, config_class):
            return previous(cls) if previous is object.__new__ else previous(cls, *args, **kwargs)
        made: Any = object.__new__(model_class)
        # Python calls __init__ by itself only on an instance of the class that was asked for.
        if not isinstance(made, cls):
            made.__init__(*args, **kwargs)
        return made

    new.is_of_biotune = True  # type: ignore[attr-defined]
    PeftModel.__new__ = staticmethod(new)


class _PostImportFinder(importlib.abc.MetaPathFinder):
    """Runs a hook once a module has been imported, then removes itself.

    It watches our own modules too: while one of them, half executed, imports PEFT, registering has
    to wait until it is whole. So the hook runs at the end of the outermost import that is watched.

    Args:
        awaited: the module's name.
        package: whose modules are watched too.
        then: the hook.
    """

    def __init__(self, awaited: str, package: str, then: Callable[[], None]) -> None:
        self._awaited = awaited
        self._package = package
        self._then = then
        self._depth = 0

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """The spec that the other finders give, with a loader that tells when it is done."""
        if fullname != self._awaited and not fullname.startswith(f"{self._package}."):
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _TellingLoader(spec.loader, self)
                return spec
        return None

    def enter(self) -> None:
        """An import that is watched begins."""
        self._depth += 1

    def leave(self, succeeded: bool) -> None:
        """An import that is watched ends."""
        self._depth -= 1
        is_done = succeeded and self._depth == 0 and self._awaited in sys.modules
        if is_done and self in sys.meta_path:
            sys.meta_path.remove(self)
            self._then()


class _TellingLoader(importlib.abc.Loader):
    """Loads as another loader does; gone from the module by the time its code runs."""

    def __init__(self, loader: importlib.abc.Loader, finder: _PostImportFinder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> Any:
        # `python -m` asks for the code instead of executing the module.
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._finder.enter()
        succeeded = False
        try:
            self._loader.exec_module(module)
            succeeded = True
        finally:
            self._finder.leave(succeeded)
