"""What is measured: the cases, how a contender is called in each, and how its result is checked.

`bench_*.py` time every contender of a case alone, `compare.py` interleaves them; both take
everything from here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from . import face
from .algebra import OPERATIONS as ALGEBRA
from .face import FACE
from .inputs import INPUTS, Sample, load_samples
from .module_operations import OPERATIONS as MODULE_OPERATIONS
from .peers import Contender

CPP = ("cpp", "cpp, 2 threads")
OURS = (*CPP, "numba", "numba, 2 threads")
COCO_PEERS = ("ultrafast-pycocotools", "hotcoco", "faster-coco-eval")
NEAREST = ("pycocotools, mask by mask", "rlemasklib")
DECODERS = ("pycocotools", "pycocotools, mask by mask", "rlemasklib", *COCO_PEERS)
THEIR_PAGES = ("touch their pages, 4 KiB", "touch their pages, 2 MiB")
ALL_PAGES = ("touch all pages, 4 KiB", "touch all pages, 2 MiB")

BEST_PEER = "the best peer"
BEST_TOUCH = "touching their pages"  # the cheaper of the two page sizes

MIN_ROUNDS = 3
SLOW = 0.2  # seconds a call, from which other libraries are checked on one sample only


@dataclass(frozen=True)
class Target:
    """`who` must take at most `1 / factor` of the time of `against`, or at most `limit_ms`."""

    who: str
    against: str | None = None
    factor: float | None = None
    limit_ms: float | None = None


def faster(who: str, against: str, factor: float) -> Target:
    return Target(who, against, factor)


def within(who: str, against: str, times: float) -> Target:
    return Target(who, against, 1 / times)


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    inputs: str
    operation: str
    contenders: tuple[str, ...]
    dtype: torch.dtype = torch.uint8
    targets: tuple[Target, ...] = ()
    calls: int = 1  # in one timing, for what takes microseconds
    seconds: float = 1.0  # for one contender, after which it sits out (but see MIN_ROUNDS)
    rounds: int = 15
    check: Callable[[Sample, Any], None] | None = None  # of results that `Runner` knows nothing of

    @property
    def full_title(self) -> str:
        return f"{INPUTS[self.inputs].title}: {self.title}"


Measure = Callable[[Case, Contender], None]


def _decode_cases(inputs: str, peers: tuple[str, ...] = NEAREST) -> Iterator[Case]:
    """A fresh and a reused uint8 batch; by default not against everybody, which would take long."""
    calls = 200 if inputs == "one-64" else 1
    for operation, title, floors in (
        ("decode", "uint8, fresh", THEIR_PAGES),
        ("decode_into", "uint8, reused buffer", ("libc memset",)),
    ):
        name = f"{inputs}-{operation.replace('_', '-')}"
        yield Case(name, title, inputs, operation, (*OURS, *peers, *floors), calls=calls)


def _headline_cases() -> Iterator[Case]:
    inputs = "sa1b-100"
    yield Case(
        "sa1b-100-decode",
        "uint8, fresh",
        inputs,
        "decode",
        (*OURS, *DECODERS, *THEIR_PAGES, *ALL_PAGES),
        targets=(
            faster("cpp", "pycocotools", 45),
            faster("cpp", "rlemasklib", 1.2),
            within("cpp", BEST_TOUCH, 1.2),
            faster("cpp, 2 threads", "rlemasklib", 1.5),
        ),
    )
    yield Case(
        "sa1b-100-decode-then-read",
        "uint8, fresh, then every byte read once",
        inputs,
        "decode_then_read",
        (*OURS, "pycocotools", *NEAREST, *THEIR_PAGES),
        targets=(
            faster("cpp", "pycocotools", 20),
            faster("cpp", "rlemasklib", 1.1),
            faster("cpp, 2 threads", "rlemasklib", 1.4),
        ),
    )
    yield Case(
        "sa1b-100-decode-into",
        "uint8, reused buffer",
        inputs,
        "decode_into",
        (*OURS, *DECODERS, "rlemasklib, bg_value=0", "libc memset"),
        targets=(
            faster("cpp", "pycocotools", 60),
            faster("cpp", "rlemasklib", 1.5),
            faster("cpp", "rlemasklib, bg_value=0", 1.5),
            within("cpp", "libc memset", 1.6),
            faster("cpp, 2 threads", "rlemasklib", 2),
            faster("cpp, 2 threads", "rlemasklib, bg_value=0", 2),
            faster("numba", "pycocotools", 25),
        ),
    )
    yield Case(
        "sa1b-100-decode-bool",
        "bool, fresh",
        inputs,
        "decode",
        (*CPP, "numba", "rlemasklib"),
        dtype=torch.bool,
    )
    yield Case(
        "sa1b-100-decode-float32",
        "float32, fresh (pycocotools: decode, stack, float)",
        inputs,
        "decode",
        (*OURS, "pycocotools", "rlemasklib", *THEIR_PAGES),
        dtype=torch.float32,
        targets=(faster("cpp", "pycocotools", 25),),
    )
    yield Case(
        "sa1b-100-decode-into-float32",
        "float32, reused buffer",
        inputs,
        "decode_into",
        (*CPP, "numba", "rlemasklib", "libc memset"),
        dtype=torch.float32,
    )


def _window_cases() -> Iterator[Case]:
    for operation, title, peers in (
        ("decode_resized", "at size (256, 256)", ()),
        ("decode_cropped", "a 256 x 256 crop of each", ("rlemasklib",)),
    ):
        yield Case(
            f"sa1b-100-{operation.replace('_', '-')}",
            title,
            "sa1b-100",
            operation,
            (*OURS, *peers, "cpp, whole masks"),
            targets=(within("cpp", "cpp, whole masks", 0.2),),
        )


def _dense_cases() -> Iterator[Case]:
    for inputs in ("noise", "checkerboard"):
        yield Case(
            f"{inputs}-decode",
            "uint8, fresh",
            inputs,
            "decode",
            (*OURS, *DECODERS),
            targets=(
                faster("cpp", "pycocotools", 1.5),
                faster("cpp", "rlemasklib", 1.0),
                faster("cpp, 2 threads", "rlemasklib", 1.5),
            ),
            rounds=7,
        )


def _small_cases() -> Iterator[Case]:
    fresh, reused = _decode_cases("small-1000", DECODERS)
    targets = (
        faster("cpp", "pycocotools", 11),
        faster("cpp", "rlemasklib", 1.1),
        faster("cpp, 2 threads", "rlemasklib", 1.5),
    )
    yield replace(fresh, targets=targets)
    yield replace(reused, contenders=(*OURS, *NEAREST, "libc memset"))
    single, single_reused = _decode_cases("one-64", DECODERS)
    contenders = ("cpp", "numba", *DECODERS)
    yield replace(single, contenders=contenders, targets=(Target("cpp", limit_ms=0.010),))
    yield replace(single_reused, contenders=contenders)


def _region_cases() -> Iterator[Case]:
    for inputs in ("sa1b-100", "real-sa1b"):
        for operation in ("area", "bbox"):
            yield Case(
                f"{inputs}-{operation}",
                f"{operation} of what was parsed before",
                inputs,
                operation,
                ("cpp", "numba", "pycocotools", "rlemasklib", *COCO_PEERS),
                targets=(
                    faster("cpp", "pycocotools", 1.5),
                    faster("cpp", BEST_PEER, 1.5),
                ),
                calls=20,
            )
            yield Case(
                f"{inputs}-{operation}-of-dicts",
                f"{operation} from dicts",
                inputs,
                f"{operation}_of_dicts",
                ("cpp", "numba", "pycocotools", "rlemasklib", *COCO_PEERS),
                calls=20,
            )


def _pack_cases() -> Iterator[Case]:
    for inputs in ("sa1b-100", "real-sa1b"):
        yield Case(
            f"{inputs}-pack",
            "dicts packed with full validation",
            inputs,
            "pack",
            ("cpp", "numba", "rlemasklib"),
            targets=(Target("cpp", limit_ms=0.15),) if inputs == "sa1b-100" else (),
            calls=20,
        )


def _encode_cases(inputs: str) -> Iterator[Case]:
    contenders: tuple[str, ...] = (*OURS, *DECODERS, "read once")
    calls, rounds = 1, 15
    rows: tuple[Target, ...] = ()
    columns: tuple[Target, ...] = ()
    if inputs == "sa1b-100":
        rows = (
            faster("cpp", "pycocotools", 15),
            faster("cpp", BEST_PEER, 1.4),
            faster("cpp, 2 threads", BEST_PEER, 2.2),
        )
        columns = (
            faster("cpp", "ultrafast-pycocotools", 1.0),
            faster("cpp, 2 threads", "ultrafast-pycocotools", 1.7),
        )
    elif inputs == "noise":
        rows = columns = (faster("cpp", "pycocotools", 1.0),)
        rounds = 7
    elif inputs == "one-64":
        rows = columns = (Target("cpp", limit_ms=0.012),)
        contenders, calls = ("cpp", "numba", *DECODERS), 200
    for order, targets in (("row", rows), ("column", columns)):
        yield Case(
            f"{inputs}-encode-{order}s",
            f"encoded, {order}-major",
            inputs,
            f"encode_{order}s",
            contenders,
            targets=targets,
            calls=calls,
            rounds=rounds,
        )


def _pair_cases(inputs: str, calls: int) -> Iterator[Case]:
    contenders = (*OURS, "pycocotools", "rlemasklib", *COCO_PEERS)
    for operation, title in (
        ("iou", "IoU of all pairs, parsed before"),
        ("iou_with_another", "IoU with as many others, parsed before"),
        ("iou_of_dicts", "IoU with as many others, from dicts"),
    ):
        from_dicts = operation == "iou_of_dicts"
        yield Case(
            f"{inputs}-{operation.replace('_', '-')}",
            title,
            inputs,
            operation,
            contenders,
            targets=(faster("cpp", BEST_PEER, 2),)
            if from_dicts
            else (faster("cpp", BEST_PEER, 3), faster("cpp, 2 threads", BEST_PEER, 5)),
            calls=calls,
        )
    yield Case(
        f"{inputs}-containment",
        "containment of all pairs, parsed before",
        inputs,
        "containment",
        (*OURS, "cpp, iou"),
        targets=(within("cpp", "cpp, iou", 1.1),),
        calls=calls,
    )


def _algebra_cases() -> Iterator[Case]:
    for name, operation in ALGEBRA.items():
        peers = ("pycocotools", *COCO_PEERS) if operation.coco else ()
        targets: tuple[Target, ...] = (faster("cpp", "rlemasklib", 1.0),)
        if name in ("algebra_union", "algebra_intersections"):
            targets = (*targets, faster("cpp", BEST_PEER, 1.3))
        yield Case(
            f"sa1b-100-{name.replace('_', '-')}",
            f"{operation.title}, from dicts to dicts",
            "sa1b-100",
            name,
            (*OURS, "rlemasklib", *peers),
            targets=targets,
            calls=5,
        )


def _face_cases() -> Iterator[Case]:
    contenders = (FACE, "pycocotools", *COCO_PEERS)
    for operation, title, factor in (
        ("union", "union of dicts", 1.3),
        ("intersections", "intersection of each with the next", 1.3),
        ("iou_of_dicts", "IoU with as many others, as float64", 2),
        ("area_of_dicts", "area as uint32", 0),
        ("bbox_of_dicts", "bbox as float64", 0),
        ("polygons", "as many octagons drawn", 0),
    ):
        target = faster(FACE, BEST_PEER, factor) if factor else faster(FACE, "pycocotools", 1)
        yield Case(
            f"sa1b-100-mask-{operation.replace('_', '-')}",
            f"mask: {title}",
            "sa1b-100",
            operation,
            contenders,
            targets=(target,),
            calls=5,
        )


def _evaluation_cases() -> Iterator[Case]:
    """COCOeval, unmodified, with each library in the place of `pycocotools.mask`."""
    for operation, title, factor in (
        ("evaluation", "COCOeval's evaluate step", 0.98),
        ("evaluation_ious", "the IoU it asks for", 2),
    ):
        yield Case(
            f"small-1000-mask-{operation.replace('_', '-')}",
            f"mask: {title}, 20 masks an image, half of them true",
            "small-1000",
            operation,
            (FACE, "pycocotools", "ultrafast-pycocotools", "faster-coco-eval"),
            targets=(faster(FACE, "pycocotools", factor),),
        )


def _face_call_cases() -> Iterator[Case]:
    for call in face.CALLS:
        yield Case(
            f"one-64-mask-{call}",
            f"mask: one call of {call}",
            "one-64",
            f"call_{call}",
            (FACE, "pycocotools", *COCO_PEERS),
            targets=(faster(FACE, "pycocotools", 1),),
            calls=200,
        )


def _noise_pair_case() -> Case:
    return Case(
        "noise-iou",
        "IoU with as many others, parsed before",
        "noise",
        "iou_with_another",
        (*OURS, "pycocotools", "rlemasklib", *COCO_PEERS),
        targets=(faster("cpp", "pycocotools", 1.0),),
        rounds=7,
    )


def _module_cases(inputs: str) -> Iterator[Case]:
    """The operations of `fd.labels`, `fd.matching` and `fd.sampling`."""
    titles = {
        "sa1b-100": {
            "label_map": "painted into an int32 label map",
            "split_labels": "from a uint8 label map",
            "split_labels_int32": "from an int32 label map",
            "points": "10 random points of each",
            "points_on_boundary": "10 random points on the boundary of each",
            "interior_points": "the most interior point of each",
        },
        "small-1000": {
            "nms": "non-maximum suppression",
            "pairs": "pairs of an IoU of 0.5 or more, as a list",
            "match": "matched to half of them, at 10 thresholds",
        },
    }
    targets = {
        "split_labels": (within("cpp", "rlemasklib", 1), Target("cpp", limit_ms=6)),
        "split_labels_int32": (Target("cpp", limit_ms=6),),
        "nms": (Target("cpp", limit_ms=30),),
    }
    for operation, title in titles[inputs].items():
        yield Case(
            f"{inputs}-{operation.replace('_', '-')}",
            title,
            inputs,
            operation,
            tuple(MODULE_OPERATIONS[operation].calls),
            targets=targets.get(operation, ()),
        )


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        # In an order that loads every set of inputs once.
        *_headline_cases(),
        *_window_cases(),
        *(c for c in _region_cases() if c.inputs == "sa1b-100"),
        *(c for c in _pack_cases() if c.inputs == "sa1b-100"),
        *_encode_cases("sa1b-100"),
        *_pair_cases("sa1b-100", 10),
        *_algebra_cases(),
        *_module_cases("sa1b-100"),
        *_face_cases(),
        *_decode_cases("sa1b-1", DECODERS),
        *_decode_cases("sa1b-10"),
        *_decode_cases("sa1b-400", ("rlemasklib",)),
        *_encode_cases("sa1b-400"),
        *_pair_cases("sa1b-400", 2),
        *_decode_cases("small-100"),
        *(c for c in _small_cases() if c.inputs == "small-1000"),
        *_encode_cases("small-1000"),
        *_pair_cases("small-1000", 1),
        *_module_cases("small-1000"),
        *_evaluation_cases(),
        *(c for c in _small_cases() if c.inputs == "one-64"),
        *_encode_cases("one-64"),
        *_face_call_cases(),
        *_decode_cases("large-10", ("rlemasklib",)),
        *(c for c in _dense_cases() if c.inputs == "noise"),
        *_encode_cases("noise"),
        _noise_pair_case(),
        *(c for c in _dense_cases() if c.inputs == "checkerboard"),
        *_decode_cases("real-sa1b"),
        *(c for c in _region_cases() if c.inputs == "real-sa1b"),
        *(c for c in _pack_cases() if c.inputs == "real-sa1b"),
        *_pair_cases("real-sa1b", 10),
        *_decode_cases("real-video"),
        *_decode_cases("real-nuclei"),
    )
}


class Runner:
    """One case, ready to run: its samples, and one output buffer for those that reuse it."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.samples = load_samples(case.inputs)
        self._buffer: torch.Tensor | None = None
        if case.operation == "decode_into":
            most = max(int(np.prod(sample.shape)) for sample in self.samples)
            self._buffer = torch.ones(most, dtype=case.dtype)

    def bind(self, contender: Contender, sample: Sample) -> Callable[[], Any]:
        """The call that is timed; parsing what `area` and `bbox` are asked of is not part of it."""
        dtype = self.case.dtype
        match self.case.operation:
            case "decode":
                return partial(contender.decode, sample, dtype)
            case "decode_then_read":
                return lambda: read_every_byte(contender.decode(sample, dtype))
            case "decode_into":
                assert self._buffer is not None
                out = self._buffer[: int(np.prod(sample.shape))].view(sample.shape)
                return partial(contender.decode_into, sample, out)
            case "area" | "bbox" as operation:
                return partial(getattr(contender, operation), contender.prepare(sample))
            case "encode_rows":
                return partial(contender.encode, sample.rows)
            case "encode_columns":
                return partial(contender.encode, sample.columns)
            case "iou" | "containment" as operation:
                prepared = contender.prepare(sample)
                return partial(getattr(contender, operation), prepared, prepared)
            case "iou_with_another":
                another = contender.prepare(self._another(sample))
                return partial(contender.iou, contender.prepare(sample), another)
            case "iou_of_dicts":
                return partial(contender.iou_of_dicts, sample, self._another(sample))
            case operation if operation in ALGEBRA:
                return partial(contender.algebra, ALGEBRA[operation], sample)
            case operation if operation in MODULE_OPERATIONS:
                return MODULE_OPERATIONS[operation].bind(contender, sample)
            case operation:
                return partial(getattr(contender, operation), sample)

    def _another(self, sample: Sample) -> Sample:
        """The next sample, which is of the same size."""
        return self.samples[(self.samples.index(sample) + 1) % len(self.samples)]

    def check(self, contender: Contender) -> float:
        """Compare with pycocotools on every sample; the seconds of the fastest call come back.

        There is more than one sample, so the fastest call is not the first one, which may compile.
        """
        fastest = float("inf")
        for sample in self.samples:
            if self._buffer is not None:
                self._buffer.fill_(1)  # what is left over from another contender must not pass
            call = self.bind(contender, sample)
            start = time.perf_counter()
            result = call()
            fastest = min(fastest, time.perf_counter() - start)
            if contender.kind != "floor":
                self._check(contender, sample, result)
            del result
            if fastest > SLOW and contender.kind in ("peer", "pycocotools"):
                break
        return fastest

    def _check(self, contender: Contender, sample: Sample, result: Any) -> None:
        if self.case.check is not None:
            self.case.check(sample, result)
            return
        match self.case.operation:
            case "decode" | "decode_into":
                assert result.dtype == self.case.dtype
                sample.check_dense(result.numpy())
            case "decode_then_read":
                sample.check_dense(contender.decode(sample, self.case.dtype).numpy())
            case "decode_resized":
                sample.check_resized(result.numpy())
            case "decode_cropped":
                sample.check_cropped(result.numpy())
            case "area" | "area_of_dicts":
                assert np.array_equal(np.asarray(result), sample.areas)
            case "bbox" | "bbox_of_dicts":
                assert np.array_equal(np.asarray(result), sample.boxes)
            case "encode_rows" | "encode_columns":
                sample.check_encoded(contender.strings(result))
            case "iou":
                assert np.array_equal(np.float32(result), sample.iou_with(sample))
            case "iou_with_another" | "iou_of_dicts":
                assert np.array_equal(np.float32(result), sample.iou_with(self._another(sample)))
            case "containment":
                assert np.array_equal(np.asarray(result), sample.containment())
            case "pack":
                assert np.array_equal(np.asarray(contender.area(result)), sample.areas)
                assert np.array_equal(np.asarray(contender.bbox(result)), sample.boxes)
            case operation if operation in ALGEBRA:
                if not (contender.name == "rlemasklib" and ALGEBRA[operation].rounds_otherwise):
                    ALGEBRA[operation].check(sample, [rle["counts"] for rle in result])
            case operation if operation in MODULE_OPERATIONS:
                MODULE_OPERATIONS[operation].check(sample, result)
            case operation:
                face.check(operation, sample, result)

    def rounds_for(self, seconds: float) -> int:
        affordable = int(self.case.seconds / (seconds * self.case.calls))
        return max(MIN_ROUNDS, min(self.case.rounds, affordable))


def read_every_byte(masks: torch.Tensor) -> int:
    """NumPy's sum of the bytes as 64-bit words, at memory speed and the same for everybody."""
    flat = masks.numpy().reshape(-1).view(np.uint8)
    whole = flat.size // 8 * 8
    return int(flat[:whole].view(np.uint64).sum()) + int(flat[whole:].sum())


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """torch's threads would help only those contenders that end in a torch operation."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
