"""The index of a tar finds every image that is whole, tells of all others, and reads by offset."""

import gc
import io
import json
import multiprocessing
import os
import pickle
import signal
import tarfile
import threading
import warnings

import numpy as np
import pytest

from sa1b_fastdecode.data import TarIndex, index_tars, tar_index, write_wids_index
from sa1b_fastdecode.sample import write_tar

NAMES = [f"sa_{i}" for i in (9, 10, 2, 333)]


def content_of(name):
    """Some bytes that tell by which name they were written."""
    rng = np.random.default_rng(sum(map(ord, name)))
    return name.encode() + rng.integers(1, 256, 700 + len(name), np.uint8).tobytes()


def write(path, names, prefix="./", tar_format=tarfile.USTAR_FORMAT, **options):
    with tarfile.open(path, "w", format=tar_format, **options) as tar:
        for name in names:
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content_of(name))
            tar.addfile(info, io.BytesIO(content_of(name)))
    return path


def pairs(names):
    """Members in an order in which no two of one image are neighbours."""
    return [f"{name}.jpg" for name in names] + [f"{name}.json" for name in names]


@pytest.fixture
def tar(tmp_path):
    return write(tmp_path / "sa_000000.tar", pairs(NAMES))


def check_all(index, names, keys=None):
    """The index has exactly these images, in the order of their numbers, with their contents."""
    names = sorted(names, key=lambda name: int(name[3:]))
    assert [index.image_id(i) for i in range(len(index))] == names
    for i, name in enumerate(names):
        for kind in ("jpg", "json"):
            assert index.read(i, kind) == content_of(f"{name}.{kind}")


def header_of(path, name):
    with tarfile.open(path) as tar:
        return next(m.offset for m in tar if m.name.endswith(name))


def overwrite(path, offset, content):
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(content)


@pytest.mark.parametrize("prefix", ["", "./", "sa_000020/", "./a/b/", "/"])
@pytest.mark.parametrize(
    "tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
def test_names_and_formats(tmp_path, prefix, tar_format):
    path = write(tmp_path / "a.tar", pairs(NAMES), prefix, tar_format)
    index = TarIndex.open(path)
    check_all(index, NAMES)
    assert index.problems == []
    folder = prefix.removeprefix("./").removeprefix("/")
    assert index.image_id(index.find(f"{folder}sa_333")) == "sa_333"
    with pytest.raises(KeyError, match="sa_3"):
        index.find("sa_3")


def test_long_names_and_global_headers(tmp_path):
    folder = "x" * 150 + "/"
    headers = {"comment": "made by hand"}
    path = write(tmp_path / "a.tar", pairs(NAMES), folder, tarfile.PAX_FORMAT, pax_headers=headers)
    index = TarIndex.open(path)
    check_all(index, NAMES)
    assert index.problems == []
    path = write(tmp_path / "b.tar", pairs(NAMES), folder, tarfile.GNU_FORMAT)
    check_all(TarIndex.open(path), NAMES)
    folder = "y" * 150 + "/" + "z" * 150 + "/"
    path = write(tmp_path / "c.tar", pairs(NAMES), folder, tarfile.GNU_FORMAT)
    index = TarIndex.open(path)
    assert len(index) == 0
    assert "longer than 255 bytes" in index.problems[0]


def test_what_is_no_image_is_left_out(tmp_path):
    others = ["._sa_9.jpg", "._sa_9.json", "LICENSE.txt", "sa_9.txt"]
    index = TarIndex.open(write(tmp_path / "a.tar", others + pairs(NAMES)))
    check_all(index, NAMES)
    assert index.problems == []


def test_missing_halves_and_doubles_are_told(tmp_path):
    members = [*pairs(NAMES), "sa_7.jpg", "sa_8.json", "sa_9.jpg"]
    index = TarIndex.open(write(tmp_path / "a.tar", members))
    check_all(index, NAMES)
    assert sorted(index.problems) == [
        "sa_7.jpg: has no .json",
        "sa_8.json: has no .jpg",
        "sa_9.jpg: is there more than once; the last one counts",
    ]


def test_a_saved_index_is_used_until_the_tar_changes(tar, monkeypatch):
    first = TarIndex.open(tar)
    monkeypatch.setattr(TarIndex, "scan", None)  # what is saved needs no scan
    check_all(TarIndex.open(tar), NAMES)
    monkeypatch.undo()
    write(tar, pairs([*NAMES, "sa_4"]))
    with pytest.raises(OSError, match="has changed since it was indexed"):
        first.read(0, "jpg")
    check_all(TarIndex.open(tar), [*NAMES, "sa_4"])
    status = tar.stat()
    os.utime(tar, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert TarIndex.load(tar) is None


@pytest.mark.parametrize("damage", ["empty", "short", "version", "magic", "longer"])
def test_a_damaged_index_is_made_again(tar, damage):
    TarIndex.open(tar)
    saved = tar.with_name(f"{tar.name}.index")
    content = saved.read_bytes()
    saved.write_bytes(
        {
            "empty": b"",
            "short": content[:-1],
            "version": content[:8] + b"\7" + content[9:],
            "magic": b"x" + content[1:],
            "longer": content + b"x",
        }[damage]
    )
    assert TarIndex.load(tar) is None
    check_all(TarIndex.open(tar), NAMES)
    assert saved.read_bytes() == content


def test_a_folder_for_indexes(tmp_path):
    tars = []
    for folder in ("one", "two"):  # two tars of the same name
        (tmp_path / folder).mkdir()
        tars.append(write(tmp_path / folder / "sa_000000.tar", pairs(NAMES[: 2 + len(tars)])))
    place = tmp_path / "made" / "indexes"
    for tar, count in zip(tars, (2, 3), strict=True):
        check_all(TarIndex.open(tar, index_dir=place), NAMES[:count])
        assert [p.name for p in tar.parent.iterdir()] == ["sa_000000.tar"]
    assert len(list(place.iterdir())) == 2
    assert len(TarIndex.load(tars[1], index_dir=place)) == 3


def test_an_index_that_cannot_be_saved_is_told_and_works(tar, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.warns(RuntimeWarning, match=r"1 of 1 tar indexes could not be saved.*index_dir"):
        index = TarIndex.open(tar, index_dir=tmp_path / "file")
    check_all(index, NAMES)
    check_all(pickle.loads(pickle.dumps(index)), NAMES)


def test_a_failed_write_leaves_nothing_behind(tar, monkeypatch):
    def fail(self, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(tar), "replace", fail)
    with pytest.warns(RuntimeWarning, match="No space left"):
        check_all(TarIndex.open(tar), NAMES)
    assert [p.name for p in tar.parent.iterdir()] == [tar.name]


# Damage


def test_a_damaged_header_costs_one_member(tar):
    offset = header_of(tar, "sa_2.jpg")
    overwrite(tar, offset + 100, b"\xff" * 60)
    index = TarIndex.open(tar)
    check_all(index, [name for name in NAMES if name != "sa_2"])
    assert index.problems[0] == (
        f"bytes {offset} to {offset + 512 + 1024} are damaged: no member was found there"
    )
    assert "sa_2.json: has no .jpg" in index.problems


@pytest.mark.parametrize("where", ["first header", "pax header", "last header", "zeros inside"])
def test_damage_anywhere(tmp_path, where):
    tar = tmp_path / "a.tar"
    tar_format = tarfile.PAX_FORMAT if where == "pax header" else tarfile.USTAR_FORMAT
    folder = "x" * 150 + "/" if where == "pax header" else ""
    write(tar, pairs(NAMES), folder, tar_format)
    kept = list(NAMES)
    if where == "first header":
        overwrite(tar, 0, b"\xff" * 512)
        kept.remove("sa_9")
    elif where == "pax header":
        # A bad length in what should hold the path: the member keeps its short name.
        overwrite(tar, 512, b"99 zzz")
    elif where == "last header":
        overwrite(tar, header_of(tar, "sa_333.json"), b"\xff" * 512)
        kept.remove("sa_333")
    else:
        offset = header_of(tar, "sa_10.json")
        overwrite(tar, offset, bytes(512))
        kept.remove("sa_10")
    index = TarIndex.open(tar)
    served = [index.image_id(i) for i in range(len(index))]
    assert set(kept) - {"sa_9"} <= set(served)
    for i, name in enumerate(served):
        assert index.read(i, "jpg") == content_of(f"{name}.jpg")
    assert index.problems


@pytest.mark.parametrize("cut", ["in a member", "in a header", "after a member", "at the start"])
def test_a_cut_off_archive_serves_what_is_whole(tar, cut):
    end = header_of(tar, "sa_333.json")
    length = {
        "in a member": end + 512 + 100,
        "in a header": end + 100,
        "after a member": end,
        "at the start": 100,
    }
    os.truncate(tar, length[cut])
    index = TarIndex.open(tar)
    check_all(index, [] if cut == "at the start" else NAMES[:3])
    told = " ".join(index.problems)
    expected = {
        "in a member": "sa_333.json: the archive is cut off",
        "in a header": "are damaged",
        "after a member": "the end-of-archive mark is missing",
        "at the start": "damaged",
    }
    assert expected[cut] in told
    if cut != "at the start":
        assert "sa_333.jpg: has no .json" in told


@pytest.mark.parametrize("content", [b"", b"no tar" * 500, bytes(10240), b"\xff" * 3000])
def test_what_is_no_tar_has_no_images(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    index = TarIndex.open(path)
    assert len(index) == 0
    assert index.problems or content == bytes(10240)
    with pytest.raises(FileNotFoundError, match=r"b\.tar"):
        TarIndex.open(tmp_path / "b.tar")


def test_random_damage_never_stops_the_scan(tmp_path):
    """And what is served then is what was written, except for bytes that were hit themselves."""
    rng = np.random.default_rng(0)
    names = [f"sa_{i}" for i in range(1, 13)]
    whole = write(tmp_path / "whole.tar", pairs(names)).read_bytes()
    for trial in range(60):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 5)):
            at, length = rng.integers(len(whole)), rng.integers(1, 900)
            content[at : at + length] = rng.integers(0, 256, length, np.uint8).tobytes()
        path = tmp_path / f"{trial}.tar"
        path.write_bytes(content[: rng.integers(1, len(content))] if trial % 3 == 0 else content)
        index = TarIndex.scan(path)
        for i in range(len(index)):
            offset, size = index._extent(i, "jpg")
            read = index.read(i, "jpg")
            assert read == path.read_bytes()[offset : offset + size]
        if len(index) < len(names):
            assert index.problems


def test_a_size_below_zero_does_not_loop(tar):
    offset = header_of(tar, "sa_2.jpg")
    block = bytearray(tar.read_bytes()[offset : offset + 512])
    block[124:136] = b"\xff" * 12  # base 256: -1
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    overwrite(tar, offset, block)
    index = TarIndex.open(tar)
    check_all(index, [name for name in NAMES if name != "sa_2"])
    assert index.problems


# Many


def test_scanning_in_processes(tmp_path, capfd):
    tars = [write(tmp_path / f"sa_{i:06d}.tar", pairs(NAMES[: i + 1])) for i in range(4)]
    indexes = index_tars(tars, num_workers=2)
    assert [len(index) for index in indexes] == [1, 2, 3, 4]
    assert "indexing tars" in capfd.readouterr().err
    for index, tar in zip(indexes, tars, strict=True):
        assert index.path == str(tar)
        check_all(index, NAMES[: len(index)])


def _kill_itself(job):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(60)
def test_a_scanning_process_that_dies_is_told(tmp_path, monkeypatch):
    tars = [write(tmp_path / f"sa_{i:06d}.tar", pairs(NAMES)) for i in range(2)]
    monkeypatch.setattr(tar_index, "_scan_and_save", _kill_itself)
    with pytest.raises(RuntimeError, match=r"died while .*sa_000000\.tar"):
        index_tars(tars, num_workers=2, progress=False)


def test_a_thousand_indexes_leave_files_closed(tmp_path):
    tar = write(tmp_path / "0.tar", pairs(NAMES))
    TarIndex.open(tar)
    saved = (tmp_path / "0.tar.index").read_bytes()
    status = tar.stat()
    tars = [tar]
    for i in range(1, 200):
        copy = tmp_path / f"{i}.tar"
        copy.write_bytes(tar.read_bytes())
        os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
        copy.with_name(f"{i}.tar.index").write_bytes(saved)
        tars.append(copy)
    gc.collect()  # what other tests left behind has files
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    indexes = [TarIndex.load(path) for path in tars]
    assert len(os.listdir("/proc/self/fd")) <= before  # noqa: PTH208
    for index in indexes:
        check_all(index, NAMES)
    assert len(os.listdir("/proc/self/fd")) <= before + 3 * tar_index._OPEN_FILES  # noqa: PTH208


def _read_everything(index, answers):
    answers.put([index.read(i, kind) for i in range(len(index)) for kind in ("jpg", "json")])


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_other_processes_read(tar, method):
    index = TarIndex.open(tar)
    expected = [index.read(i, kind) for i in range(len(index)) for kind in ("jpg", "json")]
    context = multiprocessing.get_context(method)
    answers = context.Queue()
    children = [context.Process(target=_read_everything, args=(index, answers)) for _ in range(2)]
    for child in children:
        child.start()
    for _ in children:
        assert answers.get(timeout=50) == expected
    for child in children:
        child.join()


def test_threads_read(tmp_path):
    """More tars than may be open at once, so that files are closed all the time."""
    tars = [write(tmp_path / f"{i}.tar", pairs(NAMES[:2])) for i in range(80)]
    indexes = index_tars(tars, num_workers=0, progress=False)
    failures = []

    def work(seed):
        for k in np.random.default_rng(seed).integers(len(indexes), size=200):
            try:
                check_all(indexes[k], NAMES[:2])
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# For others


def test_dali_index(tar, tmp_path):
    index = TarIndex.open(tar)
    index.write_dali_index(tmp_path / "a.idx")
    head, *lines = (tmp_path / "a.idx").read_text().splitlines()
    assert head == "v1.2 4"
    assert len(lines) == 4
    content = tar.read_bytes()
    for line in lines:
        cells = line.split()
        for extension, offset, size, name in (cells[:4], cells[4:]):
            assert name.endswith(extension)
            assert content[int(offset) : int(offset) + int(size)] == content_of(name)
    spaced = TarIndex.open(write(tmp_path / "b.tar", pairs(["sa 1"])))
    with pytest.raises(ValueError, match="sa 1"):
        spaced.write_dali_index(tmp_path / "b.idx")


def test_wids_index(tar, tmp_path):
    write_wids_index([TarIndex.open(tar)], tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["wids_version"] == 1
    assert content["shardlist"] == [
        {"url": "sa_000000.tar", "nsamples": 4, "filesize": tar.stat().st_size}
    ]


def test_generated_tars_in_metas_layout(tmp_path):
    tar = write_tar(tmp_path / "sa_000000.tar", 5, 0, sizes=[(40, 56)], num_masks=[4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        index = TarIndex.open(tar)
    assert [index.image_id(i) for i in range(5)] == [f"sa_{i}" for i in range(1, 6)]
    assert json.loads(index.read(4, "json"))["image"]["image_id"] == 5
    assert index.read(4, "jpg")[:2] == b"\xff\xd8"
    order = index.reading_order()
    offsets = [index._extent(i, "jpg")[0] for i in order.tolist()]
    assert offsets == sorted(offsets)
    assert sorted(order.tolist()) == list(range(5))
