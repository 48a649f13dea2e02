"""What a learner was given: when, how many of which class, and what tells each example from all others."""

import json
from collections import Counter
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from app.deploy.drift import SKETCH, Drift, Example
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
        drift: whether what arrived looks like what was learned of the same names; null where there was nothing to compare.
    """

    counts: dict[Name, int]
    dropped: dict[Name, int]
    again: int
    alike: list[tuple[Name, Name]]
    drift: Drift | None

    @property
    def facts(self) -> dict[str, Any]:
        """What the journal says of it beside the counts."""
        facts: dict[str, Any] = {"dropped": sum(self.dropped.values())}
        if self.drift:
            facts["drift"] = {"seen": self.drift.is_seen, "names": list(map(str, self.drift.names))}
        return facts


class Ledger:
    """The journal of a learner, and what is told of the examples that it has learned and not forgotten.

    Attributes:
        journal: what was done, oldest first: `when`, `did` and `counts` of each name, and what else is known.
        examples: in the order in which they came, each with its name and the number of the entry of the journal.
    """

    def __init__(self):
        self.journal: list[dict[str, Any]] = []
        self.examples: list[tuple[Example, Name, int]] = []
        self._known: dict[bytes, Counter] = {}  # how often each was learned, under each of its names
        self._of_name: dict[Name, list[Example]] = {}

    def enter(self, did: str, counts: dict[Name, int], **facts: Any) -> dict[str, Any]:
        """Writes a new entry."""
        self.journal.append({"when": f"{datetime.now():%Y-%m-%d %H:%M:%S}", "did": did, "counts": counts, **facts})
        return self.journal[-1]

    def add(self, name: Name, examples: list[Example]) -> None:
        """Notes examples of the last entry."""
        self._note([(example, name, len(self.journal) - 1) for example in examples])

    def of_name(self, name: Name) -> list[Example]:
        """The examples of a name, in the order in which they came."""
        return self._of_name.get(name, [])

    def times(self, digest: bytes) -> Counter:
        """How often an example was learned, under each of its names."""
        return self._known.get(digest, Counter())

    def remove(self, names: set[Name] = frozenset(), digests: set[bytes] = frozenset()) -> None:
        """Takes out all examples of these names, and those with these digests."""
        left = [row for row in self.examples if row[1] not in names and row[0].digest not in digests]
        self.examples, self._known, self._of_name = [], {}, {}
        self._note(left)

    def merge(self, other: "Ledger") -> None:
        """Adds what another learner was given, as entries of its own."""
        first = len(self.journal)
        self.journal += [{**entry, "merged": True} for entry in other.journal]
        self._note([(example, name, first + entry) for example, name, entry in other.examples])

    def _note(self, rows: list[tuple[Example, Name, int]]) -> None:
        self.examples += rows
        for example, name, _ in rows:
            self._known.setdefault(example.digest, Counter())[name] += 1
            self._of_name.setdefault(name, []).append(example)

    def state(self) -> dict[str, Any]:
        """All of it, as tensors and plain values."""
        names = list(dict.fromkeys(name for _, name, _ in self.examples))
        place = {name: number for number, name in enumerate(names)}
        return {
            "journal": json.dumps([{**entry, "counts": list(entry["counts"].items())} for entry in self.journal]),
            "names": names,
            "digests": _rows([example.digest for example, _, _ in self.examples], SIZE, torch.uint8),
            "sketches": _rows([example.sketch for example, _, _ in self.examples], SKETCH, torch.float32),
            "of_name": torch.tensor([place[name] for _, name, _ in self.examples], dtype=torch.int64),
            "of_entry": torch.tensor([entry for _, _, entry in self.examples], dtype=torch.int64),
        }

    @classmethod
    def of_state(cls, state: dict[str, Any]) -> "Ledger":
        """The ledger that gave this state."""
        ledger, names = cls(), state["names"]
        ledger.journal = [{**entry, "counts": dict(entry["counts"])} for entry in json.loads(state["journal"])]
        texts = ([row.tobytes() for row in state[part].numpy()] for part in ("digests", "sketches"))
        examples = map(Example, *texts)
        parts = zip(examples, state["of_name"].tolist(), state["of_entry"].tolist(), strict=True)
        ledger._note([(example, names[name], entry) for example, name, entry in parts])
        return ledger


def _rows(texts: list[bytes], size: int, dtype: torch.dtype) -> Tensor:
    """Bytes as rows of so many numbers."""
    text = bytearray(b"".join(texts))
    return torch.frombuffer(text, dtype=dtype).view(-1, size) if text else torch.zeros(0, size, dtype=dtype)
