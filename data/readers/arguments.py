"""The keys of a recipe that say how its data is read; the commands share them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True)
class SourceArguments:
    """The keys of a recipe that say how its `data` is read."""

    data_config_name: str | None = field(
        default=None, metadata={"help": "Configuration of a data set on the Hub, such as 3.0.0."}
    )
    data_columns: dict[str, str] | None = field(
        default=None,
        metadata={
            "help": "Mapping from the columns of the row schema to those of the data: {passage: article}."
        },
    )
    data_options: dict | None = field(
        default=None, metadata={"help": "Options of the generated briefs: {passages: ..., seed: ...}."}
    )
    data_delimiter: str | None = field(
        default=None, metadata={"help": "Character between two fields of a CSV file; the header tells it."}
    )
    data_encoding: str | None = field(
        default=None, metadata={"help": "Encoding of text files that are not in UTF-8, such as cp1252."}
    )

    def get_reader_kwargs(self) -> dict[str, Any]:
        """Return the keyword arguments of `read_rows` and `iter_rows` that the keys stand for."""
        return {
            "config_name": self.data_config_name,
            "columns": self.data_columns,
            "options": self.data_options,
            "delimiter": self.data_delimiter,
            "encoding": self.data_encoding,
        }
