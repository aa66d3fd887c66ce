"""Read YAML so that each value keeps its file and line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any

import yaml

from esl_apps.config.explain import _choices, _kind_at, _known_keys, _resolve
from esl_apps.config.fields import _NAME, _NAME_EXPECTED, ConfigError

#: Values in one file; 200 integrators and 10,000 accounts are fewer.
_MAX_NODES = 1_000_000


class _Reader:
    """YAML as plain data, with the line of every key."""

    def __init__(self, environ: Mapping[str, str], file: str) -> None:
        self.environ = environ
        self.file = file
        self.lines: dict[str, int] = {}
        self._aliases: dict[str, str] = {}
        self._nodes = 0

    def read(self, text: str) -> dict[str, Any]:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            problem = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
            line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
            raise ConfigError(f"not YAML: {problem}", line=line, file=self.file) from None
        except RecursionError:
            raise ConfigError("nested too deep", line=1, file=self.file) from None
        if root is None:
            return {}
        data = self._value(root, "")
        if not isinstance(data, dict):
            raise ConfigError("expected a mapping of sections", line=1, file=self.file)
        return data

    def alias(self, path: str, real: str) -> None:
        self._aliases[path] = real

    def error(self, path: str, message: str) -> ConfigError:
        return ConfigError(message, path, self._line(path), self.file)

    def _line(self, path: str) -> int | None:
        for alias, real in self._aliases.items():
            if path.startswith(alias):
                path = real + path[len(alias) :]
        while path:
            if path in self.lines:
                return self.lines[path]
            path = re.sub(r"(\.[^.\[]+|\[\d+\])$", "", path) if re.search(r"[.\[]", path) else ""
        return self.lines.get("")

    def _value(self, node: yaml.Node, path: str, depth: int = 0) -> Any:
        self.lines.setdefault(path, node.start_mark.line + 1)
        self._nodes += 1
        if self._nodes > _MAX_NODES:
            # Aliases of aliases: a few lines that would take hours to read.
            raise ConfigError("expected fewer values", path, node.start_mark.line + 1, self.file)
        if depth > 20:
            raise ConfigError("nested too deep", path, node.start_mark.line + 1, self.file)
        if isinstance(node, yaml.MappingNode):
            result: dict[str, Any] = {}
            for key_node, value_node in node.value:
                line = key_node.start_mark.line + 1
                if not isinstance(key_node, yaml.ScalarNode):
                    raise ConfigError("expected a plain key", path, line, self.file)
                key = self._text(str(key_node.value), path, line)
                child = f"{path}.{key}" if path else key
                if key in result:
                    raise ConfigError("the key stands here twice", child, line, self.file)
                self.lines[child] = line
                result[key] = self._value(value_node, child, depth + 1)
            return result
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, f"{path}[{i}]", depth + 1) for i, item in enumerate(node.value)]
        return self._scalar(node, path)

    def _scalar(self, node: yaml.Node, path: str) -> Any:
        line = node.start_mark.line + 1

        def from_environment(match: re.Match[str]) -> str:
            value = self.environ.get(match[1])
            if not value:
                raise ConfigError(f"the environment has no {match[1]}", path, line, self.file)
            return value

        text = self._text(re.sub(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", from_environment, node.value), path, line)
        tag = node.tag
        if text != node.value and tag == "tag:yaml.org,2002:str":
            return text
        loader = yaml.SafeLoader("")
        try:
            return loader.construct_object(yaml.ScalarNode(tag, text, node.start_mark, node.end_mark))
        except (yaml.YAMLError, ValueError):
            raise ConfigError("not a YAML value", path, line, self.file) from None
        finally:
            loader.dispose()

    def _text(self, text: str, path: str, line: int) -> str:
        """JSON writes some characters as two escapes, which YAML leaves as two halves."""
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise ConfigError("half a character", path, line, self.file) from None

    def explain(self, message: str, data: Any) -> ConfigError:
        """msgspec's message with a line: ``Expected `int`, got `str` - at `$.node.max_calls```."""
        text, _, where = message.partition(" - at ")
        steps = _resolve(where.strip("`"), data)
        path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
        kind = _kind_at(steps)
        unknown = re.search(r"unknown field `(.*)`", text)
        missing = re.search(r"missing required field `(.+?)`", text)
        if unknown:
            key = unknown[1]
            known = _known_keys(kind)
            near = difflib.get_close_matches(key, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; expected one of {', '.join(sorted(known))}"
            return self.error(f"{path}.{key}" if path else key, f"unknown key{hint if known else ''}")
        if missing:
            return self.error(f"{path}.{missing[1]}" if path else missing[1], "missing; it has no default")
        text = text[:1].lower() + text[1:]
        if "got `int`" in text and "`str" in text:
            text += "; put the number in quotes"
        elif text.startswith("invalid enum value"):
            text += f"; expected one of {', '.join(_choices(kind))}"
        elif _NAME.pattern in text:
            text = _NAME_EXPECTED
        elif "sha256:" in text:
            text = "expected sha256: and 64 hex digits, as `esl-apps hash-token` prints it"
        return self.error(path, text)
