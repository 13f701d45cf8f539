"""Read YAML like Grafana: no duplicate keys, only true and false are booleans, the same error messages."""

import re
from pathlib import Path
from typing import Any

import yaml

_BASE = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class YamlError(Exception):
    """The file cannot be read; the text is what Grafana prints."""


class _Loader(_BASE):
    yaml_implicit_resolvers = {  # noqa: RUF012 (as the base class has it)
        first: [
            (tag, pattern)
            for tag, pattern in resolvers
            if tag not in ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
        ]
        for first, resolvers in _BASE.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                line = key.start_mark.line + 1
                if key.value in seen:
                    raise YamlError(
                        f'yaml: unmarshal errors:\n  line {line}: mapping key "{key.value}" already defined'
                        f" at line {seen[key.value]}"
                    )
                seen[key.value] = line
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)


def load(path: Path) -> Any:
    """The file's content (None if it is empty). Raises YamlError and OSError."""
    try:
        return yaml.load(path.read_bytes(), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        scanner = isinstance(error, yaml.scanner.ScannerError)
        for mark in (error.context_mark, error.problem_mark):
            if mark is not None and mark.line:
                line = mark.line + (1 if scanner else 0)
                raise YamlError(f"yaml: line {line}: {error.problem}") from error
        raise YamlError(f"yaml: {error.problem}") from error
    except yaml.YAMLError as error:
        raise YamlError(f"yaml: {error}") from error


def files(directory: Path, suffixes: tuple[str, ...] = (".yaml", ".yml")) -> list[Path]:
    """Provisioning files of a directory in the order of their names. Raises OSError."""
    return sorted(path for path in directory.iterdir() if path.name.endswith(suffixes))
