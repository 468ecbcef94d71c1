"""What changed between two sights of a folder."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headwater.document import Fingerprint
from producer.diff import Changes, Seen, diff

PATHS = st.sampled_from([b"a", b"b", b"c", b"d/a", b"d/b", b"d\xff", b"e", b"f"])
MARKS = st.builds(
    Fingerprint,
    size=st.integers(0, 2),
    mtime_ns=st.integers(0, 2),
    ctime_ns=st.integers(0, 1),
    inode=st.integers(1, 5),
)
KNOWN = st.dictionaries(PATHS, st.none() | MARKS)
SEEN = st.dictionaries(PATHS, st.builds(Seen, MARKS, st.sampled_from([None, None, "symbolic link"])))


def mark(inode: int, size: int = 10, mtime_ns: int = 1) -> Fingerprint:
    return Fingerprint(size, mtime_ns, 1, inode)


def seen(**files: Fingerprint) -> dict[bytes, Seen]:
    return {name.encode(): Seen(fingerprint) for name, fingerprint in files.items()}


def known(**files: Fingerprint | None) -> dict[bytes, Fingerprint | None]:
    return {name.encode(): fingerprint for name, fingerprint in files.items()}


def touched(changes: Changes) -> list[bytes]:
    moved = [path for pair in changes.moved for path in pair]
    return [*changes.created, *changes.changed, *changes.deleted, *moved]


@given(KNOWN, SEEN)
def test_applying_the_changes_to_what_is_known_gives_what_is_seen(
    before: dict[bytes, Fingerprint | None], now: dict[bytes, Seen]
) -> None:
    changes = diff(before, now)
    result = dict(before)
    for path in (*changes.deleted, *(old for old, _ in changes.moved)):
        del result[path]
    for path in (*changes.created, *changes.changed, *(new for _, new in changes.moved)):
        result[path] = now[path].fingerprint
    assert result == {path: entry.fingerprint for path, entry in now.items()}


@given(KNOWN, SEEN)
def test_no_path_is_in_two_of_the_fields(before: dict[bytes, Fingerprint | None], now: dict[bytes, Seen]) -> None:
    paths = touched(diff(before, now))
    assert len(paths) == len(set(paths))


@given(KNOWN, SEEN)
def test_a_move_goes_from_a_path_that_is_gone_to_a_new_readable_one_of_its_size(
    before: dict[bytes, Fingerprint | None], now: dict[bytes, Seen]
) -> None:
    for old, new in diff(before, now).moved:
        fingerprint = before[old]
        assert old not in now
        assert new not in before
        assert fingerprint is not None
        assert fingerprint.size == now[new].fingerprint.size
        assert now[new].refusal is None


@given(SEEN)
def test_a_folder_that_did_not_change_has_no_changes(now: dict[bytes, Seen]) -> None:
    assert len(diff({path: entry.fingerprint for path, entry in now.items()}, now)) == 0


@given(SEEN)
def test_a_forgotten_fingerprint_is_always_a_change(now: dict[bytes, Seen]) -> None:
    assert set(diff(dict.fromkeys(now), now).changed) == set(now)


@given(st.permutations([1, 2, 3, 4]), st.permutations([1, 2, 3, 5]))
def test_a_file_that_kept_its_inode_is_paired_with_itself_whatever_else_came_and_went(
    old_inodes: list[int], new_inodes: list[int]
) -> None:
    # Given files of one size that all got new names, and one that was replaced by another file
    before = {b"old%d" % inode: mark(inode) for inode in old_inodes}
    now = {b"new%d" % inode: Seen(mark(inode)) for inode in new_inodes}
    # When they are compared
    moved = dict(diff(before, now).moved)
    # Then inodes decide before sizes do
    assert {old: moved.get(old) for old in (b"old1", b"old2", b"old3")} == {
        b"old1": b"new1",
        b"old2": b"new2",
        b"old3": b"new3",
    }


def test_a_rename_is_one_change() -> None:
    changes = diff(known(a=mark(1)), seen(b=mark(1)))
    assert changes == Changes(moved=((b"a", b"b"),))
    assert len(changes) == 1


def test_a_copy_that_replaced_its_original_is_a_move_by_size() -> None:
    assert diff(known(a=mark(1)), seen(b=mark(2, mtime_ns=9))).moved == ((b"a", b"b"),)


def test_files_of_other_sizes_are_no_move() -> None:
    changes = diff(known(a=mark(1, size=10)), seen(b=mark(1, size=11)))
    assert changes == Changes(created=(b"b",), deleted=(b"a",))


def test_two_names_that_were_swapped_are_two_changes_and_no_move() -> None:
    changes = diff(known(a=mark(1), b=mark(2)), seen(a=mark(2), b=mark(1)))
    assert set(changes.changed) == {b"a", b"b"}
    assert len(changes) == 2


def test_a_document_that_a_link_replaces_under_another_name_is_no_move() -> None:
    changes = diff(known(a=mark(1)), {b"b": Seen(mark(1), "symbolic link")})
    assert changes == Changes(created=(b"b",), deleted=(b"a",))


def test_one_old_path_is_given_to_one_new_path_only() -> None:
    changes = diff(known(a=mark(1)), seen(b=mark(1), c=mark(2)))
    assert changes.moved == ((b"a", b"b"),)
    assert changes.created == (b"c",)


def test_an_empty_folder_and_an_empty_ledger_have_no_changes() -> None:
    assert diff({}, {}) == Changes()
