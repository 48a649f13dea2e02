"""What a learner was given: when, how many of which class, and what tells each example from all others."""

import json
from collections import Counter
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.learners.kept import Name

SIZE = 16  # bytes of a digest


def digests_of(x: Tensor, y: Tensor | None = None) -> list[bytes]:
    """What tells each row from all others: equal rows have equal digests, whatever file they came from."""
    rows = x.flatten(1).cpu().numpy() if y is None else np.concatenate([x.flatten(1).cpu().double(), y.cpu().double()], 1)
    return [sha256(np.ascontiguousarray(row).tobytes()).digest()[:SIZE] for row in rows]


class Lesson(NamedTuple):
    """What a call of `learn` or `merge` came to.

    Attributes:
        counts: examples of each name that were learned.
        dropped: of each name, how many examples are not kept, where that is any.
        again: examples that had been learned before, and count once more.
        alike: pairs of names that differ in their spelling alone, and stay two.
    """

    counts: dict[Name, int]
    dropped: dict[Name, int]
    again: int
    alike: list[tuple[Name, Name]]


class Ledger:
    """The journal of a learner, and the digests of the examples that it has learned and not forgotten.

    Attributes:
        journal: what was done, oldest first: `when`, `did` and `counts` of each name, and what else is known.
        digests: of each example, its name and the number of the entry of the journal.
    """

    def __init__(self):
        self.journal: list[dict[str, Any]] = []
        self.digests: list[tuple[bytes, Name, int]] = []
        self._known: set[bytes] | None = None

    def enter(self, did: str, counts: dict[Name, int], **facts: Any) -> dict[str, Any]:
        """Writes a new entry."""
        self.journal.append({"when": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "did": did, "counts": counts, **facts})
        return self.journal[-1]

    def add(self, name: Name, digests: list[bytes]) -> None:
        """Notes examples of the last entry."""
        self.digests += [(digest, name, len(self.journal) - 1) for digest in digests]
        if self._known is not None:
            self._known.update(digests)

    def knows(self, digest: bytes) -> bool:
        """Whether an example was learned, and not forgotten."""
        if self._known is None:
            self._known = {known for known, _, _ in self.digests}
        return digest in self._known

    def by_digest(self) -> dict[bytes, Counter]:
        """How often each example was learned, under each of its names."""
        found: dict[bytes, Counter] = {}
        for digest, name, _ in self.digests:
            found.setdefault(digest, Counter())[name] += 1
        return found

    def remove(self, names: set[Name] = frozenset(), digests: set[bytes] = frozenset()) -> None:
        """Takes out all examples of these names, and those with these digests."""
        self.digests = [row for row in self.digests if row[1] not in names and row[0] not in digests]
        self._known = None

    def merge(self, other: "Ledger") -> None:
        """Adds what another learner was given, as entries of its own."""
        first = len(self.journal)
        self.journal += [{**entry, "merged": True} for entry in other.journal]
        self.digests += [(digest, name, first + entry) for digest, name, entry in other.digests]
        self._known = None

    def state(self) -> dict[str, Any]:
        """All of it, as tensors and plain values."""
        names = list(dict.fromkeys(name for _, name, _ in self.digests))
        place = {name: number for number, name in enumerate(names)}
        text = b"".join(digest for digest, _, _ in self.digests)
        return {
            "journal": json.dumps([{**entry, "counts": list(entry["counts"].items())} for entry in self.journal]),
            "names": names,
            "digests": torch.frombuffer(bytearray(text), dtype=torch.uint8).view(-1, SIZE) if text else torch.zeros(0, SIZE),
            "of_name": torch.tensor([place[name] for _, name, _ in self.digests], dtype=torch.int64),
            "of_entry": torch.tensor([entry for _, _, entry in self.digests], dtype=torch.int64),
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> "Ledger":
        """The ledger that gave this state."""
        ledger, names = cls(), state["names"]
        ledger.journal = [{**entry, "counts": dict(entry["counts"])} for entry in json.loads(state["journal"])]
        rows = (row.tobytes() for row in state["digests"].to(torch.uint8).numpy())
        parts = zip(rows, state["of_name"].tolist(), state["of_entry"].tolist(), strict=True)
        ledger.digests = [(digest, names[name], entry) for digest, name, entry in parts]
        return ledger
