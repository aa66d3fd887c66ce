"""Draws the diagrams of this folder: ``python docs/images/draw.py``.

A drawing takes its colours from CSS variables. Within a page of the site the page sets them (``_static/site.css``);
on its own, as in README.rst, the file's own style follows the reader's light or dark setting.
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

STYLE = """
.esl{--ink:#1f2328;--soft:#57606a;--line:#8c959f;--fill:#f3f5f8;--paper:#ffffff;--blue:#0b5cad;--red:#c9302c}
@media (prefers-color-scheme:dark){.esl{--ink:#e6edf3;--soft:#a0a8b2;--line:#7d8590;--fill:#21262d;--paper:#0d1117;
--blue:#7cb7ff;--red:#ff7b72}}
.esl text{font-family:system-ui,-apple-system,"Segoe UI",Helvetica,Arial,sans-serif;font-size:14px;fill:var(--ink)}
.esl .b{font-weight:600}.esl .s{font-size:12.5px;fill:var(--soft)}.esl .r{fill:var(--red);font-weight:600}
.esl .box{fill:var(--fill);stroke:var(--line);stroke-width:1.2}.esl .key{stroke:var(--blue);stroke-width:2}
.esl .note{fill:var(--paper);stroke:var(--line);stroke-width:1}.esl .l{stroke:var(--blue);stroke-width:1.6;fill:none}
.esl .t{stroke:var(--line);stroke-width:1;stroke-dasharray:3 4;fill:none}
.esl .dead{stroke:var(--red);stroke-width:2.5;fill:none}
.esl .h{fill:var(--blue)}.esl .talk{fill:var(--blue);opacity:.13}.esl .bg{fill:var(--paper)}
"""


class Drawing:
    """Shapes on a canvas of so many units."""

    def __init__(self, width: int, height: int) -> None:
        self._size = width, height
        self._shapes: list[str] = [f'<rect class="bg" width="{width}" height="{height}" rx="6"/>']

    def add(self, shape: str) -> None:
        self._shapes.append(shape)

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> None:
        self.add(f'<text x="{x}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>')

    def label(self, x: float, y: float, text: str, kind: str = "s", anchor: str = "middle") -> None:
        """Text on the paper's colour, so that a line behind it does not strike it through."""
        width = len(text) * 6.3 + 8
        left = {"middle": x - width / 2, "start": x - 4, "end": x - width + 4}[anchor]
        self.add(f'<rect class="bg" x="{left:.0f}" y="{y - 13}" width="{width:.0f}" height="17"/>')
        self.text(x, y, text, kind, anchor)

    def box(self, x: float, y: float, width: float, height: float, *lines: str, key: bool = False) -> None:
        self.add(f'<rect class="box{" key" if key else ""}" x="{x}" y="{y}" width="{width}" height="{height}" rx="7"/>')
        top = y + height / 2 - (len(lines) - 1) * 9.5 + 5
        for number, line in enumerate(lines):
            self.text(x + width / 2, top + number * 19, line, "b" if number == 0 else "s")

    def arrow(self, *points: tuple[float, float], both: bool = False) -> None:
        start = ' marker-start="url(#esl-h)"' if both else ""
        path = " ".join(f"{x},{y}" for x, y in points)
        self.add(f'<polyline class="l" points="{path}" marker-end="url(#esl-h)"{start}/>')

    def svg(self) -> str:
        width, height = self._size
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
            f' class="esl"><style>{STYLE}</style><defs><marker id="esl-h" viewBox="0 0 10 10" refX="9" refY="5"'
            ' markerWidth="7" markerHeight="7" orient="auto-start-reverse"><path class="h" d="M0,0 L10,5 L0,10 z"/>'
            "</marker></defs>\n" + "\n".join(self._shapes) + "\n</svg>\n"
        )


class Sequence(Drawing):
    """Messages between actors, from top to bottom."""

    TOP, STEP = 62, 33

    def __init__(self, actors: list[str], steps: float, gap: int = 146) -> None:
        width = gap * len(actors)
        height = self.TOP + int(self.STEP * (steps + 0.7))
        super().__init__(width, height)
        self._at = {name: gap * (number + 0.5) for number, name in enumerate(actors)}
        self._bottom = height - 8
        self._y = self.TOP + self.STEP * 0.8
        self._ends: dict[str, float] = {}
        for name, x in self._at.items():
            first, _, second = name.partition("\n")
            self.add(f'<line class="t" x1="{x}" y1="{self.TOP - 10}" x2="{x}" y2="{self._bottom}"/>')
            self.box(x - 66, 8, 132, 44, *filter(None, (first, second)), key=name.startswith("Node"))

    def say(self, source: str, target: str, text: str, kind: str = "s") -> None:
        a, b = self._at[source], self._at[target]
        self.label((a + b) / 2, self._y - 5, text, kind)
        self.arrow((a + (3 if b > a else -3), self._y + 3), (b - (3 if b > a else -3), self._y + 3))
        self._y += self.STEP

    def note(self, actor: str, text: str, kind: str = "s") -> None:
        x, width = self._at[actor], len(text) * 6.5 + 18
        left = min(max(4, x - width / 2), self._size[0] - width - 4)
        self.add(f'<rect class="note" x="{left:.0f}" y="{self._y - 13}" width="{width:.0f}" height="24" rx="5"/>')
        self.text(left + width / 2, self._y + 4, text, kind)
        self._y += self.STEP

    def talk(self, first: str, last: str, text: str) -> None:
        left, right = self._at[first] - 8, self._at[last] + 8
        self.add(f'<rect class="talk" x="{left}" y="{self._y - 16}" width="{right - left}" height="26" rx="5"/>')
        self.text((left + right) / 2, self._y + 2, text, "s")
        self._y += self.STEP

    def die(self, actor: str) -> None:
        x, y = self._at[actor], self._y - 2
        self.add(f'<rect class="bg" x="{x - 3}" y="{y}" width="6" height="{self._bottom - y}"/>')
        self.add(f'<path class="dead" d="M{x - 9},{y - 9} L{x + 9},{y + 9} M{x + 9},{y - 9} L{x - 9},{y + 9}"/>')
        self.text(x + 16, y + 5, "killed", "r", "start")
        self._y += self.STEP


def parts() -> Drawing:
    d = Drawing(900, 372)
    d.box(14, 134, 142, 84, "Phones, trunks", "SIP, WebRTC")
    d.box(252, 134, 132, 84, "FreeSWITCH", "one or several")
    d.box(
        524,
        104,
        158,
        152,
        "esl_apps node",
        "click2dial · inbound",
        "DISA · dialthrough",
        "callback · autodial",
        key=True,
    )
    d.box(792, 134, 96, 84, "Redis")
    d.box(524, 14, 158, 46, "API clients")
    d.box(524, 312, 158, 46, "Further nodes")
    d.arrow((156, 176), (252, 176), both=True)
    d.label(204, 165, "calls", "s")
    d.arrow((384, 156), (524, 156))
    d.label(454, 146, "one socket per call", "s")
    d.arrow((524, 198), (384, 198))
    d.label(454, 217, "dial, hang up, watch", "s")
    d.arrow((603, 60), (603, 104))
    d.label(612, 87, "HTTP", "s", "start")
    d.arrow((682, 176), (792, 176), both=True)
    d.label(737, 165, "state, limits,", "s")
    d.label(737, 196, "records", "s")
    d.arrow((840, 134), (840, 37), (682, 37))
    d.label(762, 29, "call records", "s")
    d.arrow((603, 312), (603, 256), both=True)
    d.label(612, 289, "take over when a node dies", "s", "start")
    d.arrow((524, 335), (318, 335), (318, 218), both=True)
    d.arrow((682, 335), (840, 335), (840, 218), both=True)
    return d


def click_to_dial() -> Drawing:
    client, node, redis, switch, agent, callee = actors = [
        "API client", "Node", "Redis", "FreeSWITCH", "Agent's phone", "Callee's phone",
    ]  # fmt: skip
    d = Sequence(actors, 22.3)
    d.say(client, node, "POST /click2dial/calls")
    d.note(node, "checks token, numbers, limits; writes the call to its own file")
    d.say(node, client, "202 queued, call_ref")
    d.say(node, switch, "bgapi originate (agent's leg)")
    d.say(switch, agent, "INVITE")
    d.say(agent, switch, "180 Ringing")
    d.say(switch, node, "event: agent_ringing")
    d.say(node, redis, "call's state")
    d.say(agent, switch, "200 OK")
    d.say(switch, node, "connects a socket for this call")
    d.say(node, switch, "execute bridge (callee's leg)")
    d.say(switch, callee, "INVITE")
    d.say(callee, switch, "180 Ringing")
    d.say(switch, agent, "ringback")
    d.say(callee, switch, "200 OK")
    d.say(switch, node, "event: bridged")
    d.talk(switch, callee, "they talk; the audio passes FreeSWITCH only")
    d.say(callee, switch, "BYE")
    d.say(switch, node, "hang-up events: causes, times")
    d.note(node, "makes the record, appends it to its journal")
    d.say(node, redis, "push, once")
    d.say(redis, client, "BRPOP: the record")
    return d


def node_death() -> Drawing:
    phones, switch, first, redis, second = actors = ["Phones", "FreeSWITCH", "Node A", "Redis", "Node B"]
    d = Sequence(actors, 16, gap=168)
    d.say(first, redis, "heartbeat, every second")
    d.say(first, redis, "each call's essence")
    d.talk(phones, switch, "two parties talk")
    d.die(first)
    d.note(switch, "the bridge goes on: no audio passes the node")
    d.say(second, redis, "heartbeat: who is silent?")
    d.note(second, "4 s of silence: node A is dead")
    d.say(second, redis, "move its calls to node B")
    d.say(second, switch, "which of their legs are up?")
    d.note(switch, "a caller who waited is handed back by the dialplan")
    d.say(switch, second, "connects a socket for that caller")
    d.say(phones, switch, "BYE")
    d.say(switch, second, "hang-up events of the talking call")
    d.note(second, "makes the record from the switch's own times")
    d.say(second, redis, "push, unless the record is there")
    d.note(redis, "a late push by node A, restarted, changes nothing")
    return d


DRAWINGS = {"parts": parts, "click-to-dial": click_to_dial, "node-death": node_death}

if __name__ == "__main__":
    for name, draw in DRAWINGS.items():
        (Path(__file__).parent / f"{name}.svg").write_text(draw().svg(), encoding="utf-8")
