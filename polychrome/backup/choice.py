"""Which collections and which backups a command means. Nothing is read or written here."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from polychrome.backup.model import Backup, CollectionBackup
from polychrome.backup.survey import Place
from shared.catalog.names import name_problem
from shared.errors import InvalidArgument, NotFound


class BackupKind(NamedTuple):
    """The facts of a backup that pruning depends on: its name, the ids of the collections that were asked for (None:
    all of them), and whether each of them is in it.
    """

    name: str
    selected: frozenset[str] | None
    complete: bool


def kind_of(backup: Backup) -> BackupKind:
    """The facts of this backup that pruning depends on."""
    selected = None if backup.selected is None else frozenset(backup.selected)
    return BackupKind(backup.name, selected, not backup.failed)


def outdated(backups: Sequence[BackupKind], keep: int) -> list[str]:
    """The names of the backups that pruning removes, of all that there are, oldest first.

    Backups of everything are counted apart from those of some collections, and these by which collections they are of:
    one of a single collection replaces none of everything. The newest `keep` complete ones of each kind stay, with all
    that came after the oldest of them. One that lacks a damaged collection is not complete: it does not push out the
    last one that has it whole.
    """
    by_selection = defaultdict[frozenset[str] | None, list[BackupKind]](list)
    for each in backups:
        by_selection[each.selected].append(each)
    removed = list[str]()
    for alike in by_selection.values():
        complete = [each.name for each in alike if each.complete]
        if len(complete) >= keep:
            removed += [each.name for each in alike if each.name < complete[-keep]]
    return sorted(removed)


def words_for(collection: Place | CollectionBackup) -> set[str]:
    """The words that name the collection on the command line."""
    return {collection.id, collection.name, f"{collection.tenant}/{collection.database}/{collection.name}"}


def _words_for_failed(collection_id: str, why: str) -> set[str]:
    """The words that name a collection that a backup lacks, for a reason that begins with its path."""
    path = why.partition(": ")[0]
    return {collection_id, path, path.rpartition("/")[2]}


def selected_ids(words: Sequence[str], collections: Sequence[Place]) -> frozenset[str] | None:
    """The ids of the collections that these words name, of all that there are; None, for everything, when there are no
    words. Raises NotFound for a word that names none.
    """
    if not words:
        return None
    ids = {word: {each.id for each in collections if word in words_for(each)} for word in words}
    if missing := [word for word in words if not ids[word]]:
        raise NotFound(f"there is no collection {', '.join(missing)}; nothing was backed up")
    return frozenset[str]().union(*ids.values())


def is_suitable(backup: Backup, wanted: str | None) -> bool:
    """Whether the backup has the collection that is wanted; without one, whether it is one of everything."""
    if wanted is None:
        return backup.selected is None
    return any(wanted in words_for(collection) for collection in backup.collections)


def chosen(backup: Backup, wanted: str | None, new_name: str | None) -> dict[str, str]:
    """The collections to restore, by id, with their names. A `new_name` is held to the rule for new collections. Raises
    NotFound, InvalidArgument.
    """
    if new_name is not None and (problem := name_problem(new_name)):
        raise InvalidArgument(problem)
    if wanted is None:
        return {collection.id: collection.name for collection in backup.collections}
    found = [collection for collection in backup.collections if wanted in words_for(collection)]
    if not found:
        why = next((f": {why}" for each, why in backup.failed.items() if wanted in _words_for_failed(each, why)), "")
        raise NotFound(f"backup {backup.name} has no collection {wanted}{why}")
    if len(found) > 1:
        raise InvalidArgument(f"{wanted} is the name of several: {', '.join(each.path for each in found)}")
    return {found[0].id: found[0].name if new_name is None else new_name}
