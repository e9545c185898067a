"""Puts ``sa1b_fastdecode.mask`` in the place of ``pycocotools.mask``, and takes it out again."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

_PACKAGE, _NAME = "pycocotools", "pycocotools.mask"
_MISSING: Any = object()

# What was there before: the entries of sys.modules by name, and the package's attribute.
_before: dict[str, Any] | None = None
_attribute_before: Any = _MISSING


def install() -> None:
    """Make every later ``import pycocotools.mask``, in whatever form, give this module.

    That holds for this process and those forked from it. What was imported before keeps what it
    has. It works, too, where pycocotools is not installed.

    Example:
        >>> from sa1b_fastdecode import mask
        >>> mask.install()
        >>> from pycocotools import mask as coco_mask
        >>> coco_mask is mask
        True
        >>> mask.uninstall()
    """
    global _before, _attribute_before
    if _before is not None:
        return
    before = {name: sys.modules.get(name, _MISSING) for name in (_PACKAGE, _NAME)}
    try:
        package = importlib.import_module(_PACKAGE)
    except ModuleNotFoundError:
        spec = importlib.machinery.ModuleSpec(_PACKAGE, None, is_package=True)
        package = sys.modules[_PACKAGE] = importlib.util.module_from_spec(spec)
    else:
        before[_PACKAGE] = package  # an import that need not be undone
    _before, _attribute_before = before, getattr(package, "mask", _MISSING)
    ours: ModuleType = importlib.import_module("sa1b_fastdecode.mask")
    sys.modules[_NAME] = ours
    package.mask = ours  # type: ignore[attr-defined]


def uninstall() -> None:
    """Undo ``install``. What was imported in between keeps what it has."""
    global _before
    if _before is None:
        return
    package = sys.modules[_PACKAGE]
    if _attribute_before is _MISSING:
        del package.mask
    else:
        package.mask = _attribute_before  # type: ignore[attr-defined]
    for name, module in _before.items():
        if module is _MISSING:
            del sys.modules[name]
        else:
            sys.modules[name] = module
    _before = None
