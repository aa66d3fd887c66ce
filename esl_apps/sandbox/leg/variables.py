"""Channel variables: kept in the order in which they were set, found in any case, with their text in events."""

from __future__ import annotations

from esl_apps.sandbox.wire import strings
from esl_apps.sandbox.wire.wire import url_encode


class Variables:
    """The variables of one channel."""

    def __init__(self) -> None:
        self._variables: dict[str, tuple[str, str]] = {}
        self._lines: dict[str, str] = {}
        """Cached lines of variables in events, in no order."""
        self._variables_text: str | None = None
        self._hooked = False
        """Some ``execute_on_…`` or ``api_on_…`` variable is set."""

    def get(self, name: str) -> str | None:
        """Return a channel variable; the name's case doesn't matter."""
        pair = self._variables.get(name.lower())
        return pair[1] if pair else None

    def set(self, name: str, value: str | None) -> None:
        """Set a variable, which moves to the end of the list as in the switch; None removes it."""
        key = name.lower()
        existed = self._variables.pop(key, None)
        if value:
            pair = (name, value)
            self._variables[key] = pair
            if key.startswith(("execute_on", "api_on")):
                self._hooked = True
            if pair != existed:
                self._lines.pop(key, None)
        elif existed is None:
            return
        else:
            self._lines.pop(key, None)
        self._variables_text = None

    def push(self, name: str, value: str) -> None:
        """Append to a variable that is a list."""
        old = self.get(name)
        if old is None:
            self.set(name, value)
            return
        # A list keeps its position.
        value = (old if old.startswith("ARRAY::") else f"ARRAY::{old}") + f"|:{value}"
        self._variables[name.lower()] = (name, value)
        self._lines.pop(name.lower(), None)
        self._variables_text = None

    def variables(self) -> list[tuple[str, str]]:
        """Return all variables in order."""
        return list(self._variables.values())

    def true(self, name: str) -> bool:
        """Whether a variable is true."""
        return strings.true(self.get(name))

    def variables_text(self) -> str:
        """Return all variables as lines of an event, cached until one changes."""
        if self._variables_text is None:
            lines = self._lines
            for key, (name, value) in self._variables.items():
                if key not in lines:
                    lines[key] = f"variable_{name}: {url_encode(value)}\n"
            self._variables_text = "".join([lines[key] for key in self._variables])
        return self._variables_text
