"""The aliases of a shard: names that stand for collections, in one small file that is replaced atomically."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from services.indexer.files import DamagedFileError, read_checked, write_checked
from services.runtime.server import StartError
from vitrine.errors import InvalidArgumentError
from vitrine.keys import check_collection_name

FORMAT = 1
MAX_ALIASES = 1_024


class Aliases:
    """Which alias points at which collection. `change` is not for the event loop; everything else may run anywhere."""

    def __init__(self, file: Path) -> None:
        """Reads the aliases; none where there is no file.

        Raises:
            StartError: The file is damaged. To go on without it could send searches to the wrong collection, or to
                none.
        """
        self._file = file
        self._targets: Mapping[str, str] = _load(file)  # replaced, never changed: threads read it

    def target(self, name: str) -> str | None:
        """Returns the collection that an alias points at; None where `name` is no alias."""
        return self._targets.get(name)

    def of(self, collection: str) -> list[str]:
        """Returns the aliases that point at a collection, by name."""
        return sorted(alias for alias, target in self._targets.items() if target == collection)

    def items(self) -> Iterable[tuple[str, str]]:
        """Returns all aliases with their collections, by alias."""
        return sorted(self._targets.items())

    def change(self, alias: str, collection: str | None) -> None:
        """Points an alias at a collection, or removes it (None); on disk when it returns.

        Raises:
            InvalidArgumentError: There are as many aliases as there may be.
            OSError: The disk refuses, nothing changes. (Should only the sync of the folder have failed, the next
                start may find the change.)
        """
        changed = dict(self._targets)
        changed.pop(alias, None)
        if collection is not None:
            changed[alias] = collection
        if len(changed) > MAX_ALIASES:
            raise InvalidArgumentError(f"alias: the shard has {MAX_ALIASES} aliases, which is the limit", field="alias")
        if changed != self._targets:
            write_checked(self._file, {"format": FORMAT, "aliases": changed})
            self._targets = changed


def _load(file: Path) -> dict[str, str]:
    try:
        body = read_checked(file, known_format=FORMAT)
        aliases = {str(alias): str(collection) for alias, collection in body["aliases"].items()}
        for name in (*aliases, *aliases.values()):
            check_collection_name(name)
    except FileNotFoundError:
        return {}
    except (OSError, DamagedFileError, KeyError, AttributeError, InvalidArgumentError) as error:
        raise StartError(
            f"{file} is damaged ({error}); bring it back from a backup, or move it away, start, and set every alias of "
            "this shard again with SetAlias (until then callers that use one get NOT_FOUND)"
        ) from None
    return aliases
