"""The shards of a stage: the Parquet files part-00000.parquet, part-00001.parquet, … that hold its rows."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skillfactory import files, rows
from skillfactory.errors import StoreError

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True)
class Shards:
    """The shard files of a stage, in order; `known` has the hashes of those that a finished stage is made of."""

    paths: list[Path]
    known: dict[str, str]

    def read(self, number: int, columns: Sequence[str] | None = None, verify: bool = True) -> "pyarrow.Table":
        """One shard, or some of its columns. Raises StoreError where it is damaged."""
        path = self.paths[number]
        try:
            if not verify:
                return rows.from_parquet(path, columns)
            data = path.read_bytes()
            if path.name in self.known and files.sha256(data) != self.known[path.name]:
                raise ValueError("its content is not what its stage wrote")
            return rows.from_parquet(data, columns)
        except ValueError as error:
            raise StoreError(f"{path} is damaged ({error}); {mend_of(path.parent)}") from error


def is_shard(path: Path) -> bool:
    """Whether a file has the name of a shard."""
    return re.fullmatch(r"part-\d+\.parquet", path.name) is not None


def number_of(path: Path) -> int:
    """The number in a shard's name."""
    return int(path.stem.removeprefix("part-"))


def paths_in(stage: Path) -> list[Path]:
    """The shards in a stage's folder, in order."""
    return sorted(filter(is_shard, stage.glob("part-*.parquet")), key=number_of)


def mend_of(stage: Path) -> str:
    """The ways out where files of a stage are damaged, as the end of a sentence."""
    doctor = f"`skillfactory doctor {stage.parent} --repair` mends what it can"
    return f"{doctor}, `--fresh {stage.name}` makes the whole stage anew."
