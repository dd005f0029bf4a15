"""The queue: in one step or not at all, in order, and gone only when delivered."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from prunedge.edge.agent.database import FILE, Stamp, Store
from prunedge.edge.agent.messages import Message
from prunedge.errors import AgentError


def message(key: str) -> Message:
    return Message(f"id-{key}", "t/findings", "{}")


def record(store: Store, name: str, content: str = "c", mtime: int = 1) -> None:
    store.record(Stamp(name, 5, mtime), content, message(name + content), ["images"])


class Queue(RuleBasedStateMachine):
    """Whatever is recorded, delivered, cut off or refused by a full disk: the store is what a simple list says."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.store = Store(self.folder)
        self.seen: set[str] = set()
        self.waiting: list[str] = []

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(name=st.sampled_from("abcdefgh"))
    def image(self, name: str) -> None:
        stamp = Stamp(name, 5, 1)
        assert (
            self.store.knows(stamp) == self.store.knows_content(stamp, "c") == (name in self.seen)
        )
        if name not in self.seen:
            record(self.store, name)
            self.seen.add(name)
            self.waiting.append(f"id-{name}c")

    @rule(key=st.sampled_from("xy"))
    def failure(self, key: str) -> None:
        self.store.enqueue(message(key))
        if f"id-{key}" not in self.waiting:
            self.waiting.append(f"id-{key}")

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def delivered(self, data: st.DataObject) -> None:
        found = self.store.oldest(100)
        chosen = data.draw(st.sets(st.sampled_from(found), min_size=1))
        self.store.delivered(waiting.place for waiting in chosen)
        gone = {waiting.message.id for waiting in chosen}
        self.waiting = [id for id in self.waiting if id not in gone]

    @rule()
    def power_cut(self) -> None:
        """Nothing is closed: what the files hold at this moment is what the next start finds."""
        later = Path(tempfile.mkdtemp())
        for file in self.folder.glob(f"{FILE}*"):
            shutil.copy(file, later)
        self.store.close()
        shutil.rmtree(self.folder)
        self.folder, self.store = later, Store(later)

    @rule()
    def full_disk(self) -> None:
        base = self.store._base
        pages = base.execute("PRAGMA page_count").fetchone()[0]
        base.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(AgentError, match=r"full.*make room"):
            for number in range(len(self.seen), len(self.seen) + 1000):
                self.store.record(
                    Stamp(f"big{number}", 1, 1),
                    "c",
                    Message(f"big{number}", "t", "x" * 3000),
                    ["images"],
                )
                self.seen.add(f"big{number}")
                self.waiting.append(f"big{number}")
        base.execute("PRAGMA max_page_count = 1000000")

    @invariant()
    def is_what_the_list_says(self) -> None:
        assert [waiting.message.id for waiting in self.store.oldest(5000)] == self.waiting
        assert self.store.waiting() == len(self.waiting)
        assert self.store.counts().get("images", 0) == len(self.seen)
        assert not self.store.knows(Stamp("never", 5, 1))


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=10, stateful_step_count=20, deadline=None)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def test_a_file_that_was_only_touched_is_known(store: Store) -> None:
    record(store, "a")
    touched = Stamp("a", 5, 99)
    assert not store.knows(touched)
    assert store.knows_content(touched, "c")
    assert store.knows(touched)


def test_another_name_or_another_content_is_another_image(store: Store) -> None:
    record(store, "a", "c")
    assert not store.knows_content(Stamp("b", 5, 1), "c")
    assert not store.knows_content(Stamp("a", 5, 1), "d")


def test_a_image_is_never_recorded_twice(store: Store) -> None:
    record(store, "a")
    with pytest.raises(AgentError):
        record(store, "a")
    assert store.waiting() == 1
    assert store.counts() == {"images": 1}


def test_messages_on_their_way_are_left_out(store: Store) -> None:
    for name in "abcd":
        record(store, name)
    first = store.oldest(2)
    assert [
        waiting.message.id for waiting in store.oldest(2, {waiting.place for waiting in first})
    ] == ["id-cc", "id-dc"]


def test_places_are_never_used_again(store: Store) -> None:
    record(store, "a")
    (first,) = store.oldest(1)
    store.delivered([first.place])
    record(store, "b")
    assert store.oldest(1)[0].place > first.place


def test_notes_are_written_together_and_taken_away(store: Store) -> None:
    store.write_notes(a="1", b="2")
    store.write_notes(a=None, b="3")
    assert (store.note("a"), store.note("b")) == (None, "3")


def test_a_folder_belongs_to_one_agent(store: Store) -> None:
    with pytest.raises(AgentError, match=r"another agent.*--state"):
        Store(store.folder)
    store.close()
    Store(store.folder).close()


def test_what_is_no_queue_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"something else " * 100)
    with pytest.raises(AgentError, match=FILE):
        Store(tmp_path)
    assert (tmp_path / FILE).read_bytes().startswith(b"something else")
    for number in (1, 99):
        folder = tmp_path / str(number)
        folder.mkdir()
        with sqlite3.connect(folder / FILE) as base:
            base.execute(f"PRAGMA user_version = {number}")
        with pytest.raises(
            AgentError,
            match=rf"is of format {number}; this prunedge reads format 2 .*: run the agent of the version",
        ):
            Store(folder)


def test_a_place_that_can_t_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(AgentError, match="--state"):
        Store(tmp_path / "file" / "below")
