"""A stream in the list of rows: all its methods over several seeds, which `benchmarks.continual` puts on record."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.continual_runs import methods_of
from benchmarks.stream_record import SEEDS_TO_RANK

RUNS = Path("runs") / "benchmarks" / "continual"


@dataclass(frozen=True)
class StreamRow:
    """A stream.

    Attributes:
        name: of the stream and its record.
        seeds: how many.
        scenarios: class, task and domain, where the stream has several.
        why_not: why it cannot be run here; null where it can.
    """

    name: str
    seeds: int = SEEDS_TO_RANK
    scenarios: int = 1
    why_not: str | None = None

    published = ()

    @property
    def training(self) -> str:
        """As of a row: what is locked."""
        return self.name

    @property
    def steps(self) -> int:
        """Runs of a method, a seed and a scenario each."""
        return self.seeds * self.scenarios * len(methods_of(self.name))

    @property
    def finished_steps(self) -> int:
        """Those that have ended."""
        folders = [path.parent.name for path in (RUNS / self.name).rglob("results.json")]
        alone = [name for name in folders if name.startswith("seed_") and int(name[5:]) < self.seeds]
        several = [name.removeprefix("seeds_").split("_to_") for name in folders if name.startswith("seeds_")]
        return len(alone) + sum(min(int(last) + 1, self.seeds) - int(first) for first, last in several if int(first) < self.seeds)

    def command(self, data_dir: str) -> list[str]:
        """A module and its arguments; what has ended is not run again."""
        files = [] if self.name == "glyphs_stream" else ["--data_dir", data_dir]
        options = ["--seeds", str(self.seeds), "--processes", "1", "--record", *files]
        return ["benchmarks.continual", "--stream", self.name, *options]

    def is_recorded(self, record: dict[str, Any] | None) -> bool:
        """Whether a record has all its methods with so many seeds."""
        if record is None or record["kind"] != "stream":
            return False
        return set(methods_of(self.name)) <= {row["method"] for row in record["rows"] if row["seeds"] >= self.seeds}
