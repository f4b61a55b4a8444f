"""What a store holds, for questions about many artifacts again and again: what is done of 100,000 tasks, every two seconds.

A stage's folder is listed once per refresh instead of looking for each artifact in it, and a manifest that was found to be
complete is not read again while its folder stays.
"""

from __future__ import annotations

from eva_hpc.store.artifacts import Artifact, Store
from eva_hpc.store.keys import Identity, containing


class Inventory:
    """The artifacts of a store. Folders are those of the last :meth:`refresh`; what is in them is looked at when asked for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._listings: dict[str, dict[str, dict[str, int]]] = {}
        self._committed: dict[Identity, int] = {}

    def refresh(self) -> None:
        """Look again, from the next question on."""
        self._listings.clear()

    def holds(self, identity: Identity) -> bool:
        """Whether :meth:`Store.find` would find it. Sizes of files are compared the first time only."""
        return any(self._is_committed(*one) for one in self._candidates(identity))

    def find(self, identity: Identity) -> Artifact | None:
        """As :meth:`Store.find`."""
        return next((artifact for one in self._candidates(identity) if (artifact := self._read(*one)) is not None), None)

    def _candidates(self, identity: Identity) -> list[tuple[Identity, int]]:
        """What may be, or contain, the artifact asked for, the smallest first, with the inode numbers of the folders."""
        if identity.stage not in self._listings:
            self._listings[identity.stage] = self.store.listing(identity.stage)
        names = self._listings[identity.stage].get(identity.family, {})
        if not identity.nested:
            return [(identity, names[identity.name])] if identity.name in names else []
        return [(one, names[one.name]) for one in containing(identity, names)]

    def _is_committed(self, identity: Identity, inode: int) -> bool:
        # Another inode is another folder: the one before was set aside, and the artifact is being made again.
        return self._committed.get(identity) == inode or self._read(identity, inode) is not None

    def _read(self, identity: Identity, inode: int) -> Artifact | None:
        artifact = self.store.at(self.store.folder(identity))
        if artifact is None or artifact.identity != identity:
            return None
        self._committed[identity] = inode
        return artifact
