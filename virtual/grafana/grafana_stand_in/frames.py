"""Data frames, the results of queries, and their JSON."""

import math
from dataclasses import dataclass, field
from typing import Any

_TYPE_INFO = {"time": {"frame": "time.Time"}}
_GO_TYPE = {"number": "float64", "string": "string", "boolean": "bool"}


@dataclass
class Field:
    """A column: kind is time, number, string or boolean; times are milliseconds since 1970."""

    name: str
    kind: str
    values: list[Any]
    labels: dict[str, str] | None = None
    display: str = ""
    nullable: bool = True

    def schema(self) -> dict[str, Any]:
        info: dict[str, Any] = {"frame": "time.Time" if self.kind == "time" else _GO_TYPE[self.kind]}
        if self.nullable and self.kind != "time":
            info["nullable"] = True
        schema: dict[str, Any] = {"name": self.name, "type": self.kind, "typeInfo": info}
        if self.labels is not None:
            schema["labels"] = self.labels
        if self.display:
            schema["config"] = {"displayNameFromDS": self.display}
        return schema


@dataclass
class Frame:
    """A table of columns of equal length."""

    name: str
    fields: list[Field]
    meta: dict[str, Any] = field(default_factory=dict)

    def to_json(self, ref_id: str) -> dict[str, Any]:
        schema: dict[str, Any] = {"name": self.name} if self.name else {}
        schema["refId"] = ref_id
        if self.meta:
            schema["meta"] = {"typeVersion": [0, 0], **self.meta}
        schema["fields"] = [column.schema() for column in self.fields]
        columns, entities = [], []
        for column in self.fields:
            special: dict[str, list[int]] = {}
            values = []
            for position, value in enumerate(column.values):
                if isinstance(value, float) and not math.isfinite(value):
                    name = "NaN" if math.isnan(value) else ("Inf" if value > 0 else "NegInf")
                    special.setdefault(name, []).append(position)
                    value = None
                elif isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
                    value = int(value)
                values.append(value)
            columns.append(values)
            entities.append(special or None)
        data: dict[str, Any] = {"values": columns}
        if any(entities):
            data["entities"] = entities
        return {"schema": schema, "data": data}
