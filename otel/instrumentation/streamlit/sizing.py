"""How many bytes an object holds, estimated at a bounded cost and without running a line of the application's code.

Nothing here calls a method that a class of the application may define: no `__sizeof__`, `__len__`, `__iter__`,
`__getattr__` or property. Sizes come from C code alone, references from the garbage collector's own view of an object,
and large containers are sampled. Nothing is locked, so a container may change meanwhile: then what was seen counts.
"""

from __future__ import annotations

import gc
import sys
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Any

import msgspec

#: Of a container with more elements than this, so many are looked at, and stand for all.
SAMPLE = 64
#: So many objects are looked at in one measurement: about 2 ms.
MAX_OBJECTS = 1_000

#: What belongs to the process and not to whoever refers to it.
_SHARED: tuple[type, ...] = (
    *(type, types.ModuleType, types.FunctionType, types.BuiltinFunctionType, types.CodeType, types.FrameType),
    *(types.GeneratorType, types.CoroutineType, types.TracebackType, types.MethodDescriptorType),
    *(types.GetSetDescriptorType, types.MemberDescriptorType, types.MappingProxyType, weakref.ReferenceType, property),
)
_LEAVES: tuple[type, ...] = (str, bytes, bytearray, int, float, complex, bool, type(None), range, memoryview)
_C_METHODS = ("method_descriptor", "wrapper_descriptor", "cython_function_or_method")
_mro = type.__dict__["__mro__"].__get__
_namespace = type.__dict__["__dict__"].__get__


class Size(msgspec.Struct, frozen=True):
    """`bytes` that were found; `complete` unless there was more than could be looked at."""

    bytes: int
    complete: bool


def size_of(roots: Iterable[Any], max_objects: int = MAX_OBJECTS) -> Size:
    """Estimate what `roots` hold together; what several of them share counts once.

    Arguments:
        max_objects: so many are looked at, at most.
    """
    seen: set[int] = set()
    waiting: deque[tuple[Any, float]] = deque((each, 1.0) for each in roots)
    total = 0.0
    for _ in range(max_objects):
        if not waiting:
            return Size(int(total), True)
        value, weight = waiting.popleft()
        if id(value) in seen or issubclass(type(value), _SHARED):
            continue
        seen.add(id(value))
        total += weight * _own_bytes(value)
        if type(value) not in _LEAVES:
            parts, share = _parts(value)
            waiting.extend((each, weight * share) for each in parts)
    return Size(int(total), not waiting)


def _own_bytes(value: Any) -> int:
    """Size without what it refers to, by the first `__sizeof__` that is C code: a class's own is passed over."""
    array = _numpy_array()
    if array is not None and issubclass(type(value), array):
        return _array_bytes(value, array)
    for base in _mro(type(value)):
        method = _namespace(base).get("__sizeof__")
        if type(method).__name__ in _C_METHODS:
            return int(method(value)) + (16 if gc.is_tracked(value) else 0)
    return 16


def _parts(value: Any) -> tuple[list[Any], float]:
    """What an object refers to, and how many each of them stands for."""
    kind = type(value)
    array = _numpy_array()
    if array is not None and issubclass(kind, array):
        return _array_parts(value, array)
    for base, length, first in _CONTAINERS:
        if issubclass(kind, base):
            count = length(value)
            if count <= SAMPLE:
                break
            parts = first(value)
            return (parts, len(parts) and count * _width(base) / len(parts))
    return gc.get_referents(value), 1.0


def _width(base: type) -> int:
    return 2 if base is dict else 1


def _spread(value: Any, base: Any) -> list[Any]:
    """Elements at equal distances."""
    length = base.__len__(value)
    found = []
    for index in range(0, length, max(1, length // SAMPLE)):
        try:
            found.append(base.__getitem__(value, index))
        except IndexError:
            break
    return found[:SAMPLE]


def _first(view: Callable[[], Iterable[Any]]) -> list[Any]:
    try:
        return list(islice(view(), SAMPLE))
    except RuntimeError:  # it has changed meanwhile
        return []


def _of_dict(value: Any) -> list[Any]:
    return [each for pair in _first(lambda: dict.items(value)) for each in pair]


#: Base type, its length, and a sample of its elements, all by C code.
_CONTAINERS: tuple[tuple[type, Callable[[Any], int], Callable[[Any], list[Any]]], ...] = (
    (list, list.__len__, lambda value: _spread(value, list)),
    (tuple, tuple.__len__, lambda value: _spread(value, tuple)),
    (dict, dict.__len__, _of_dict),
    (set, set.__len__, lambda value: _first(lambda: set.__iter__(value))),
    (frozenset, frozenset.__len__, lambda value: _first(lambda: frozenset.__iter__(value))),
    (deque, deque.__len__, lambda value: _spread(value, deque)),
)


# -- numpy, where the application uses it: the collector does not see into its arrays --------------------------------


def _numpy_array() -> Any:
    module = sys.modules.get("numpy")
    return getattr(module, "ndarray", None)


def _array_bytes(value: Any, array: Any) -> int:
    header = 112
    own = array.base.__get__(value) is None
    return header + (int(array.nbytes.__get__(value)) if own else 0)


def _array_parts(value: Any, array: Any) -> tuple[list[Any], float]:
    base = array.base.__get__(value)
    if base is not None:
        return [base], 1.0
    count = int(array.size.__get__(value))
    if not array.dtype.__get__(value).hasobject or not count:
        return [], 1.0
    found = []
    for index in range(0, count, max(1, count // SAMPLE)):
        try:
            found.append(array.item(value, index))
        except IndexError:
            break
    return found, count / len(found) if found else 1.0
