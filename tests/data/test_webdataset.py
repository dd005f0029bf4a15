"""Shards as images: on disk and behind a URL, with their splits, sources and classes, and what can be wrong with them."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunedge.data import Dataset, cache, check, load
from prunedge.data.decode import source_of, try_image
from prunedge.data.webdataset import remote, shards
from prunedge.data.webdataset.tar_index import index
from prunedge.edge.image.read import read_image
from prunedge.edge.image.size import square
from prunedge.errors import DataError
from tests.data.shards import image, samples, tar_bytes, write_shard, write_shards


@pytest.fixture
def memory() -> Iterator[Any]:
    """fsspec's file system in memory, empty before and after."""
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def names_of(data: Dataset) -> list[set[str]]:
    return [
        {"/".join(sample.path.parts[-2:]) for sample in split.samples}
        for split in data.splits().values()
    ]


def right(data: Dataset) -> bool:
    """Whether each image and label is that of the number in its name."""
    return all(
        sample.target == int(sample.path.stem) % 2
        and (
            split.pixels([i])[0] == read_image(io.BytesIO(image(int(sample.path.stem))), square(16))
        ).all()
        for split in data.splits().values()
        for i, sample in enumerate(split.samples)
    )


def test_one_shard_a_pattern_and_a_folder_are_the_same_images(tmp_path: Path) -> None:
    write_shards(tmp_path / "s")
    data = load(tmp_path / "s", size=16)
    assert data.classes == ("0", "1")
    assert [len(split) for split in data.splits().values()] == [28, 6, 6]
    assert right(data)
    assert load(f"{tmp_path}/s/{{000..003}}.tar", size=16).fingerprint == data.fingerprint
    assert load(f"file://{tmp_path}/s/{{000..003}}.tar", size=16).fingerprint == data.fingerprint
    one = load(tmp_path / "s" / "002.tar", size=16, val=0.2, test=0.2)
    assert set.union(*names_of(one)) == {f"002.tar/{i:04d}.png" for i in range(20, 30)}
    assert right(one)


def test_braces_in_a_name_that_is_there(tmp_path: Path) -> None:
    write_shards(tmp_path / "{a}")
    assert right(load(tmp_path / "{a}", size=16))
    shard = write_shard(tmp_path / "{0..1}.tar", samples(0, 40))
    assert names_of(load(shard, size=16))[0] <= {f"{{0..1}}.tar/{i:04d}.png" for i in range(40)}


def test_a_relative_pattern(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_shards(tmp_path / "s")
    monkeypatch.chdir(tmp_path)
    data = load("s/{000..003}.tar", size=16)
    monkeypatch.chdir("/")
    assert right(data)


@pytest.mark.parametrize("names", ["{}/000.tar", "{}-000.tar", "{}_000.tar"])
@pytest.mark.parametrize("val", ["val", "valid", "validation"])
def test_folders_and_names_give_the_split(tmp_path: Path, names: str, val: str) -> None:
    for i, side in enumerate(("train", val, "test")):
        write_shard(tmp_path / names.format(side), samples(i * 10, i * 10 + 10))
    train, validation, test = names_of(load(tmp_path, size=16))
    assert [{int(name[-8:-4]) // 10 for name in side} for side in (train, validation, test)] == [
        {0},
        {1},
        {2},
    ]


def test_a_split_that_not_all_names_tell_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_shards(tmp_path, 2, prefix="train-")
    write_shard(tmp_path / "more.tar", samples(20, 40))
    assert [len(split) for split in load(tmp_path, size=16).splits().values()] == [28, 6, 6]
    assert "more.tar says no split" in caplog.text


def test_json_says_label_source_and_split(tmp_path: Path) -> None:
    members = []
    for i in range(60):
        about = {
            ("label", "class")[i % 2]: "ab"[i % 2],
            "source": f"photo{i // 4}",
            "split": ("train", "VAL", "test")[i // 4 % 3],
            "x": [1],
        }
        members += [
            (f"d/{i}.json", json.dumps(about).encode()),
            (f"./d/{i}.jpg", image(i, kind="JPEG")),
        ]
    data = load(write_shard(tmp_path / "x.tar", members), size=16)
    assert data.classes == ("a", "b")
    for place, split in enumerate(data.splits().values()):
        assert {int(sample.source[5:]) % 3 for sample in split.samples} == {place}
        assert all(int(sample.path.stem) % 2 == sample.target for sample in split.samples)


def test_group_by_reads_the_name_in_the_shard(tmp_path: Path) -> None:
    write_shards(tmp_path)
    data = load(tmp_path, size=16, group_by=r"^(\d+\.tar/\d{3})")
    parts = [{sample.source for sample in split.samples} for split in data.splits().values()]
    assert set.union(*parts) == {"000.tar/000", "001.tar/001", "002.tar/002", "003.tar/003"}
    assert sum(map(len, parts)) == 4


def test_classes_txt_names_the_integers(tmp_path: Path) -> None:
    write_shards(tmp_path, prefix="train/")
    (tmp_path / "classes.txt").write_text("sound\ncrack\n")
    data = load(tmp_path, size=16)
    assert data.classes == ("crack", "sound")
    assert all(
        data.classes[sample.target] == ("sound", "crack")[int(sample.path.stem) % 2]
        for sample in data.train.samples
    )
    (tmp_path / "classes.txt").write_text("sound\n")
    with pytest.raises(
        DataError, match=r"1 label is not in classes.txt: '1' of train/000.tar/0001.png first"
    ):
        load(tmp_path, size=16)


def test_a_class_folder_called_like_a_shard_and_shards_beside_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for label in ("a.tar", "b.tar"):
        for i in range(20):
            (tmp_path / label).mkdir(exist_ok=True)
            (tmp_path / label / f"{i}.png").write_bytes(image(i + ord(label[0]) * 100))
    write_shard(tmp_path / "x.tar", samples(0, 4))
    assert load(tmp_path, size=16).classes == ("a.tar", "b.tar")
    assert "left out beside the images: x.tar" in caplog.text


def test_unreadable_images_in_a_shard_are_named(tmp_path: Path) -> None:
    broken = [
        ("bad.png", image(1)[:100]),
        ("bad.cls", b"0"),
        ("none.png", b""),
        ("none.cls", b"1"),
    ]
    write_shard(tmp_path / "x.tar", [*samples(0, 40), *broken])
    with pytest.raises(
        DataError,
        match=r"2 of 42 images can't be read: x.tar/bad.png \(.*\), x.tar/none.png \(empty file\)",
    ) as caught:
        load(tmp_path, size=16)
    assert "0x" not in str(caught.value)
    data = load(tmp_path, size=16, skip_unreadable=True)
    assert [path.name for path in data.skipped] == ["bad.png", "none.png"]
    assert right(data)


def _rewrite(path: Path, change: Any) -> None:
    path.write_bytes(change(path.read_bytes()))


FAULTS = {
    "damaged or was cut short.*(unexpected end|no end)": lambda shard: _rewrite(
        shard, lambda data: data[: len(data) // 2]
    ),
    "damaged or was cut short: it has no end after 35,840": lambda shard: _rewrite(
        shard, lambda data: data[:35840]
    ),
    "damaged or was cut short.*no end after 1": lambda shard: _rewrite(
        shard, lambda data: data[:1536] + b"x" * 512 + data[2048:]
    ),
    "damaged or was cut short: empty": lambda shard: shard.write_bytes(b""),
    "damaged or was cut short: ": lambda shard: shard.write_bytes(b"no tar file at all" * 1000),
    r"compressed \(gzip\)": lambda shard: _rewrite(shard, gzip.compress),
    "9999: no label": lambda shard: write_shard(shard, [*samples(0, 10), ("9999.png", image(1))]),
    "9999: no image": lambda shard: write_shard(shard, [*samples(0, 10), ("9999.cls", b"1")]),
    "a/9: several images": lambda shard: write_shard(
        shard, [("a/9.png", b""), ("a/9.jpg", b""), ("a/9.cls", b"1")]
    ),
    "9.png is there twice": lambda shard: write_shard(
        shard, [("9.png", b""), ("9.png", b""), ("9.cls", b"1")]
    ),
    "9: unknown split 'holdout'": lambda shard: write_shard(
        shard, [("9.png", b""), ("9.json", b'{"label": 1, "split": "holdout"}')]
    ),
    "9: `label` in its .json looks like a table": lambda shard: write_shard(
        shard, [("9.png", b""), ("9.json", b'{"label": {"1": 1}}')]
    ),
    "9: its .json is damaged": lambda shard: write_shard(
        shard, [("9.png", b""), ("9.json", b'{"label": ')]
    ),
    "9: its .json is no object": lambda shard: write_shard(
        shard, [("9.png", b""), ("9.json", b"[1]")]
    ),
    "9.cls has more than 1,000 bytes": lambda shard: write_shard(
        shard, [("9.png", b""), ("9.cls", b"1" * 1001)]
    ),
    "and 45 more": lambda shard: write_shard(shard, [(f"{i}.png", b"") for i in range(50)]),
    "no images found": lambda shard: write_shard(shard, [("readme.txt", b"nothing")]),
    "only one class, '0'": lambda shard: write_shard(shard, samples(0, 1)),
}


@pytest.mark.parametrize("message", FAULTS)
def test_faults_of_a_shard(tmp_path: Path, message: str) -> None:
    shard = write_shard(tmp_path / "x.tar", samples(0, 10))
    FAULTS[message](shard)
    with pytest.raises(DataError, match=message) as caught:
        load(shard, size=16)
    assert "x.tar" in str(caught.value)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_links_in_a_shard_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        about = tarfile.TarInfo("1.png")
        about.type, about.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(about)
    with pytest.raises(DataError, match=r"1\.png is a link"):
        load(tmp_path / "x.tar", size=16)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("{}/x.tar", "1 of 1 shard can't be found"),
        ("{}/{{000..005}}.tar", r"2 of 6 shards can't be found, .*004\.tar first"),
        ("{}/x.tar.gz", r"compressed \(gz\).*plain .tar"),
        ("{}/{{000..1.tar", "braces that don't match"),
        ("nosuch://bucket/x.tar", "no file system for this URL.*nosuch"),
        ("memory://bucket/x.tar", "no such file or folder"),
        ("memory://bucket/{{0..1}}.tar", "no such file or folder"),
        ("memory://bucket", "no shards found"),
    ],
)
def test_places_without_shards(tmp_path: Path, memory: Any, data: str, message: str) -> None:
    write_shards(tmp_path)
    with pytest.raises(DataError, match=message) as caught:
        load(data.format(tmp_path), size=16)
    assert caught.value.remedy


def test_a_file_system_that_is_not_installed_names_its_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fsspec.register_implementation(
        "elsewhere", "no_such_package.System", errtxt="Install no_such_package", clobber=True
    )
    with pytest.raises(DataError, match=r"elsewhere://b/x.tar.*pip install no_such_package"):
        load("elsewhere://b/x.tar", size=16)


def test_only_packed_shards_in_a_folder(tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_bytes(gzip.compress(tar_bytes(samples(0, 4))))
    with pytest.raises(DataError, match=r"compressed \(gz\)"):
        load(tmp_path, size=16)


class Counting:
    """How often each shard is fetched whole and asked for a part."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fetched: Counter[str] = Counter()
        self.parts: Counter[str] = Counter()
        fetch, read = remote.fetch, remote.read
        monkeypatch.setattr(
            remote, "fetch", lambda url, *rest: (self.fetched.update([url]), fetch(url, *rest))[1]
        )
        monkeypatch.setattr(
            remote, "read", lambda url, *rest: (self.parts.update([url]), read(url, *rest))[1]
        )


def upload(memory: Any, folder: Path, to: str = "/bucket/s") -> None:
    for file in folder.rglob("*.*"):
        memory.pipe(f"{to}/{file.relative_to(folder).as_posix()}", file.read_bytes())


@pytest.mark.parametrize(
    "url",
    [
        "memory://bucket/s",
        "memory://bucket/s/",
        "memory://bucket/s/{test,train,val}-{000..001}.tar",
    ],
)
def test_a_url_is_read_once_and_then_by_parts(
    tmp_path: Path, home: Path, memory: Any, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i, side in enumerate(("train", "val", "test")):
        for k in range(2):
            write_shard(
                tmp_path / "s" / f"{side}-00{k}.tar", samples(i * 20 + k * 10, i * 20 + k * 10 + 10)
            )
    (tmp_path / "s" / "classes.txt").write_text("sound\ntrack\n")
    upload(memory, tmp_path / "s")
    memory.pipe("/bucket/s/other/000.tar", b"neither here nor in a split's folder")
    count = Counting(monkeypatch)
    data = load(url, size=16, cache_dir=home)
    assert data.fingerprint == load(tmp_path / "s", size=16).fingerprint
    assert data.classes == ("sound", "track")
    assert right(data)
    assert set(count.fetched.values()) == {1}
    assert len(count.fetched) == 6
    assert not count.parts
    assert not list((home / "shards").glob("*.tar")), "the copies are not needed any more"
    shards._open.clear()  # as another process
    assert load(Path(url), size=16, cache_dir=home) == data
    assert sum(count.fetched.values()) == 6
    one = data.test.samples[0].path
    assert (try_image(one, square(16)) == data.test.pixels([0])[0]).all()
    assert sum(count.parts.values()) == 1
    assert source_of("memory://bucket/s/test-001.tar/0055.png").getvalue() == image(55)
    with pytest.raises(FileNotFoundError):
        source_of("memory://bucket/s/test-001.tar/0000.png")


@pytest.mark.parametrize(
    "data", ["simplecache::memory://b/s", "simplecache::memory://b/s/{0..1}.tar"]
)
def test_chained_urls(home: Path, memory: Any, data: str) -> None:
    for i in range(2):
        memory.pipe(f"/b/s/{i}.tar", tar_bytes(samples(i * 20, i * 20 + 20)))
    found = load(data, size=16, cache_dir=home)
    assert right(found)
    assert (try_image(found.test.samples[0].path, square(16)) == found.test.pixels([0])[0]).all()


def test_a_new_version_behind_a_url_is_noticed(tmp_path: Path, home: Path, memory: Any) -> None:
    memory.pipe("/b/x.tar", tar_bytes(samples(0, 40)))
    first = load("memory://b/x.tar", size=16, cache_dir=home)
    memory.pipe("/b/x.tar", tar_bytes(samples(2, 42)))
    second = load("memory://b/x.tar", size=16, cache_dir=home)
    assert first.fingerprint != second.fingerprint
    assert right(second)


def test_without_room_for_the_array_copies_are_read(
    home: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/b/x.tar", tar_bytes(samples(0, 40)))
    monkeypatch.setattr(cache, "LIMIT_BYTES", 1000)
    monkeypatch.setattr(
        cache.decode_all, "__kwdefaults__", {**cache.decode_all.__kwdefaults__, "limit": 1000}
    )
    count = Counting(monkeypatch)
    data = load("memory://b/x.tar", size=16, cache_dir=home)
    assert data.train.cache is None
    assert right(data)
    assert not count.parts
    next((home / "shards").glob("*.tar")).unlink()  # another run made room
    assert right(data)
    assert sum(count.parts.values()) == 40


def test_without_room_for_copies_images_are_asked_for_one_by_one(
    home: Path, memory: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    memory.pipe("/b/x.tar", tar_bytes(samples(0, 40)))
    usage = shutil.disk_usage(home.parent)
    monkeypatch.setattr(shards.shutil, "disk_usage", lambda _: usage._replace(free=20_000))
    count = Counting(monkeypatch)
    data = load("memory://b/x.tar", size=16, cache_dir=home)
    assert not count.fetched, "each image is asked for once"
    assert sum(count.parts.values()) == 40, "each image is asked for once"
    assert right(data)
    assert "asked for one by one" in caplog.text


def test_a_shard_that_changes_under_a_run_is_noticed(tmp_path: Path, home: Path) -> None:
    shard = write_shard(tmp_path / "x.tar", samples(0, 40))
    data = load(shard, size=16, cache_dir=home)
    write_shard(shard, samples(40, 90))
    assert (
        try_image(data.train.samples[0].path, square(16))
        == "the shard has changed since it was listed"
    )
    assert right(load(shard, size=16, cache_dir=home))


def test_half_of_a_shard_that_arrives_is_an_error(
    home: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/b/x.tar", tar_bytes(samples(0, 40)))
    monkeypatch.setattr(
        type(memory),
        "get_file",
        lambda self, path, target, **_: Path(target).write_bytes(self.cat_file(path)[:9000]),
    )
    with pytest.raises(DataError, match=r"9,000 of .* bytes arrived.*memory://b/x.tar"):
        load("memory://b/x.tar", size=16, cache_dir=home)
    assert not list((home / "shards").glob("*.tar"))
    assert not list((home / "shards").glob("*.tmp*"))


def test_a_store_without_parts_of_files_is_not_taken_at_its_word(
    home: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/b/x.tar", tar_bytes(samples(0, 40)))
    data = load("memory://b/x.tar", size=16, cache_dir=home)
    whole = type(memory).cat_file
    monkeypatch.setattr(
        type(memory), "cat_file", lambda self, path, start=None, end=None: whole(self, path)
    )
    assert try_image(data.train.samples[0].path, square(16)) == "the store gives no parts of files"


def test_check_looks_at_shards(
    tmp_path: Path, home: Path, memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = [
        ("copy.png", image(3)),
        ("copy.cls", b"0"),
        ("bad.png", b"x"),
        ("bad.cls", b"0"),
        ("large.jpg", image(9, 24, "JPEG")),
        ("large.cls", b"1"),
    ]
    memory.pipe("/b/x.tar", tar_bytes([*samples(0, 60), *extra]))
    count = Counting(monkeypatch)
    report = check("memory://b/x.tar", size=16, cache_dir=home)
    assert report.data == "memory://b/x.tar"
    assert sum(report.counts["train"].values()) > 0
    assert list(report.unreadable) == ["x.tar/bad.png"]
    (conflict,) = report.conflicts
    assert conflict.images == ("x.tar/0003.png", "x.tar/copy.png")
    assert report.formats == {"PNG": 61, "JPEG": 1}
    assert report.sizes.largest == (24, 24)
    assert report.modes == {"RGB": 62}
    assert sum(count.fetched.values()) == 1, "the headers were seen while decoding"
    assert sum(count.parts.values()) == 1, "the headers were seen while decoding"


@given(
    st.lists(
        st.tuples(
            st.text("ab0_-", min_size=1, max_size=4),
            st.sampled_from(["png", "jpg", "JPG", "cls", "json", "txt", "seg.png", "b.cls", ""]),
        ),
        max_size=12,
        unique=True,
    )
)
def test_the_key_ends_at_the_first_dot(members: list[tuple[str, str]]) -> None:
    content = {"cls": b"7", "json": b'{"label": "j", "source": 3}'}
    tar = tar_bytes([(f"d.e/{key}.{kind}", content.get(kind, b"x")) for key, kind in members])
    kinds: dict[str, set[str]] = {}
    for key, kind in members:
        if kind in ("png", "jpg", "JPG", "cls", "json"):
            kinds.setdefault(key, set()).add(kind)
    texts = {"cls", "json"}
    if all(len(found - texts) == 1 and found & texts for found in kinds.values()):
        found = index(io.BytesIO(tar), "x.tar")
        assert set(found) == {
            f"d.e/{key}.{next(iter(kind - texts))}" for key, kind in kinds.items()
        }
        for key, kind in kinds.items():
            one = found[f"d.e/{key}.{next(iter(kind - texts))}"]
            assert one.label == ("7" if "cls" in kind else "j")
            assert one.source == ("3" if "json" in kind else None)
            assert tar[one.offset : one.offset + one.size] == b"x"
    else:
        with pytest.raises(DataError, match="samples that can't be used"):
            index(io.BytesIO(tar), "x.tar")


@given(st.integers(0, 40_000), st.binary(min_size=1, max_size=8))
def test_a_damaged_shard_is_an_error_or_whole(place: int, bytes_: bytes) -> None:
    whole = tar_bytes([(f"{i}.{kind}", b"1" * 700) for i in range(8) for kind in ("png", "cls")])
    place %= len(whole)
    damaged = whole[:place] + bytes_ + whole[place + len(bytes_) :]
    try:
        found = index(io.BytesIO(damaged[: len(whole)]), "x.tar")
    except DataError as error:
        assert "x.tar" in str(error)
        assert "\n" not in str(error)
    else:
        assert len(found) == 8, "no sample is lost in silence"
