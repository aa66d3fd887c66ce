"""Count the phrases that make this project's prose hard to read, per 1,000 words of each folder.

Prose is the comments and docstrings of Python files, the messages they log, raise or print, the text of ``*.rst`` and
``*.md``, and the comments of configuration, shell, Lua and XML files. Code in backticks and literal blocks isn't prose.

``[tool.esl_apps.style]`` in ``pyproject.toml`` lists the folders that fail above `LIMIT`. Without that list every
folder is checked.

The limit is a guard, not the goal: text that avoids the phrases and still reads oddly isn't done.
"""

import argparse
import ast
import bisect
import gc
import inspect
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NamedTuple

LIMIT = 1.5  # markers per 1,000 words; well-read projects (h11, httpcore, dramatiq, huey) have 0.4 to 1.2
LONGEST_TEST_NAME = 60

_GAP = r"(?:[ \t\u00a0]|\n[ \t]*)"  # between two words of a phrase; a blank line ends it
MARKERS = {
    "is no": rf"\bis{_GAP}no\b",
    "stand(s)": r"\bstands?\b",
    "whoever": r"\bwhoever\b",
    "nobody": r"\bnobody\b",
    "somebody": r"\bsomebody\b",
    "anew": r"\banew\b",
    "is told of": rf"\bis{_GAP}told{_GAP}of\b",
    "beside": r"\bbeside\b",
    "as ever": rf"\bas{_GAP}ever\b",
    "that there is": rf"\bthat{_GAP}there{_GAP}is\b",
    "he/his/him": r"\bhe\b|\bhis\b|\bhim\b",
    ", where it/there/that/none/one": rf",{_GAP}where{_GAP}(?:it|there|that|none|one)\b",
}
OPENING = "opens a sentence"
"""The marker of a sentence that opens with a word of `_OPENING`, in a comment or docstring. Questions may."""

_LABELS = list(MARKERS)
_MARKER = re.compile("|".join(f"({pattern})" for pattern in MARKERS.values()), re.IGNORECASE)
_QUOTES = r"""["'(*`\u2018\u2019\u201c\u201d)]*"""
_ITEM = r"(?:[*+-]|\d+[.)])[ \t]+"
_OPENING = re.compile(
    rf"(?:\A\s*(?:{_ITEM})?|[.!?\u2026]{_QUOTES}\s+(?:{_ITEM})?|\n[ \t]*\n\s*(?:{_ITEM})?|\n[ \t]*{_ITEM}){_QUOTES}"
    r"(?P<word>What|Who|Whoever|Whom|Of)\b"
)
_SENTENCE_END = re.compile(rf"[.!?\u2026]{_QUOTES}(?=\s|\Z)|\n[ \t]*\n|\Z")
_WORD = re.compile(r"[^\W_]\S*")
_DOUBLE_BACKTICKS = re.compile(r"``(?!`).+?``", re.DOTALL)
_BACKTICKS = re.compile(r"``(?!`).+?``|`[^`\n]+`", re.DOTALL)

COMMENT, DOCSTRING, DOCS, MESSAGE = "comment", "docstring", "docs", "message"


class Passage(NamedTuple):
    """A run of prose; `line` is the line in the file on which `text` starts."""

    line: int
    text: str
    kind: str


class Hit(NamedTuple):
    """A marker in a passage; `text` is the line of prose around it."""

    line: int
    marker: str
    text: str


@dataclass
class Count:
    """A folder's totals."""

    words: int = 0
    hits: list[tuple[str, Hit]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Markers per 1,000 words."""
        return 1000 * len(self.hits) / self.words if self.words else 0.0


# --- Python


# Finds comments 15 times faster than `tokenize` does. A test compares the two over this repository. It doesn't know the
# nested quotes of f-strings in Python 3.12 (PEP 701); code for 3.11 can't have them.
_LEXEME = re.compile(
    r'''(?P<comment>\#[^\n]*)|"""(?:\\.|[^\\])*?"""|\'\'\'(?:\\.|[^\\])*?\'\'\'|"(?:\\.|[^\\"\n])*"|'(?:\\.|[^\\'\n])*\'''',
    re.DOTALL,
)
_PRAGMA = re.compile(r"#(?:!|\s*(?:type:|noqa|fmt:|pragma:|mypy:|ruff:|pylint:|-\*-))")
_LOGGING = frozenset({"debug", "info", "warning", "error", "exception", "critical", "log"})
_HELP = frozenset({"help", "epilog"})
_LEAVES = frozenset({ast.Name, ast.Constant, ast.Load, ast.Store, ast.Del, ast.alias})
_PARSERS = frozenset({"ArgumentParser", "add_parser", "add_argument_group", "add_subparsers"})


def python_comments(source: str) -> Iterator[tuple[int, int, bool, str]]:
    """Yield line, column, whether code precedes it, and text with the ``#`` of each comment of Python `source`."""
    starts = [0, *(match.end() for match in re.finditer(r"\n", source))]
    for match in _LEXEME.finditer(source):
        if match["comment"] is not None:
            line = bisect.bisect_right(starts, match.start())
            before = source[starts[line - 1] : match.start()]
            yield line, len(before), bool(before.strip()), match["comment"].rstrip()


def python_passages(source: str, name: str = "<source>") -> list[Passage]:
    """Return the prose of Python `source`. Raises SyntaxError."""
    passages = list(_joined(python_comments(source)))
    lines = source.split("\n")
    messages: dict[tuple[int, int], Passage] = {}
    for node in _nodes(ast.parse(source, name)):
        if isinstance(node, ast.Expr):
            if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
                passages.append(_docstring(node.lineno, node.value.value))
        elif isinstance(node, ast.Call | ast.Raise):
            for spoken in _spoken(node):
                for literal, text in _literals(spoken):
                    at = _line_of(text, lines, literal)
                    messages[literal.lineno, literal.col_offset] = Passage(at, text, MESSAGE)
    return passages + list(messages.values())


def _nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Yield the nodes of a tree, without leaves. Takes half the time of `ast.walk`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        for value in node.__dict__.values():
            if isinstance(value, ast.AST):
                if value.__class__ not in _LEAVES:
                    waiting.append(value)
            elif value.__class__ is list:
                waiting += [part for part in value if isinstance(part, ast.AST) and part.__class__ not in _LEAVES]


def _joined(comments: Iterable[tuple[int, int, bool, str]]) -> Iterator[Passage]:
    """Join comments on consecutive lines of the same column: they share sentences."""
    block: list[str] = []
    first = last = column = 0
    for line, start, after_code, text in comments:
        if _PRAGMA.match(text):
            continue
        if block and (line != last + 1 or start != column or after_code):
            yield Passage(first, "\n".join(block), COMMENT)
            block = []
        if not block:
            first = line
        last, column = line, start
        block.append(text.lstrip("#:").strip())
    if block:
        yield Passage(first, "\n".join(block), COMMENT)


def _docstring(line: int, text: str) -> Passage:
    skipped = len(text) - len(text.lstrip("\n"))
    return Passage(line + skipped, rst_prose(inspect.cleandoc(text)), DOCSTRING)


def _spoken(node: ast.Call | ast.Raise) -> list[ast.expr]:
    """Return the parts of a call or a raise that people read."""
    if isinstance(node, ast.Raise):
        return [node.exc] if node.exc else []
    function = node.func
    name = getattr(function, "attr", getattr(function, "id", ""))
    if name == "print" or (isinstance(function, ast.Attribute) and (name in _LOGGING or _is_console(function))):
        return [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg not in ("sep", "end"))]
    return [
        keyword.value
        for keyword in node.keywords
        if keyword.arg in _HELP or (keyword.arg == "description" and name in _PARSERS)
    ]


def _is_console(function: ast.Attribute) -> bool:
    """Whether a call of `function` writes to the terminal: ``sys.exit``, ``sys.stderr.write``, ``sys.stdout.write``."""
    owner = function.value
    if function.attr == "exit":
        return isinstance(owner, ast.Name) and owner.id in ("sys", "parser")
    return function.attr == "write" and isinstance(owner, ast.Attribute) and owner.attr in ("stderr", "stdout")


def _literals(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Yield the string literals in `node`, but no keys of dicts and subscripts. An f-string's values become ``{}``."""
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            yield node, node.value
    elif isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
        yield node, "".join(str(part) for part in parts)
    elif isinstance(node, ast.Dict):
        for value in node.values:
            yield from _literals(value)
    elif isinstance(node, ast.Subscript):
        yield from _literals(node.value)
    else:
        for child in ast.iter_child_nodes(node):
            yield from _literals(child)


def _line_of(text: str, lines: list[str], literal: ast.expr) -> int:
    """Return the line of the first marker in a literal of several lines, else the literal's first line."""
    last = literal.end_lineno or literal.lineno
    if last > literal.lineno and "\n" not in text and (match := _MARKER.search(text)):
        for number in range(literal.lineno, last + 1):
            if match[0] in lines[number - 1]:
                return number
    return literal.lineno


# --- Other files


_INDENT = re.compile(r"[ \t]*(?:(?:[*+-]|\d+[.)]|#\.)[ \t]+)?")  # a list item's text is indented by its mark, too
_CODE_DIRECTIVE = re.compile(
    r"\s*\.\. (?:code|code-block|sourcecode|literalinclude|parsed-literal|doctest|"
    r"raw|math|graphviz|mermaid|image|toctree)::"
)


def rst_prose(text: str) -> str:
    """Return reStructuredText with its literal blocks, code directives and doctests as empty lines."""
    prose: list[str] = []
    indent = -1  # of the paragraph or directive that owns the block of code; -1 outside of one
    for line in text.split("\n"):
        width = len(line) - len(line.lstrip())
        if indent >= 0:
            if not line.strip() or width > indent:
                prose.append("")
                continue
            indent = -1
        if _CODE_DIRECTIVE.match(line):
            indent = width
            prose.append("")
        elif line.lstrip().startswith(">>> "):
            prose.append("")
        else:
            if line.rstrip().endswith("::") and not line.lstrip().startswith(".. "):
                indent = len(_INDENT.findall(line)[0])
            prose.append(line)
    return "\n".join(prose)


def markdown_prose(text: str) -> str:
    """Return Markdown with its fenced code as empty lines."""
    prose: list[str] = []
    fence = ""
    for line in text.split("\n"):
        opening = re.match(r"\s*(`{3,}|~{3,})", line)
        if fence:
            if opening and opening[1].startswith(fence) and not line.strip(" `~"):
                fence = ""
            prose.append("")
        elif opening:
            fence = opening[1]
            prose.append("")
        else:
            prose.append(line)
    return "\n".join(prose)


# The group is atomic: a quoted string is never given back to look for a comment inside it.
_HASH_COMMENT = re.compile(
    r"""(?P<code>(?>(?<!\w)"(?:\\.|[^"\\])*"|(?<!\w)'[^']*'|(?<=\S)\#|[^#])*?)(?<!\S)(?P<comment>\#.*)"""
)


def hash_passages(text: str) -> list[Passage]:
    """Return the comments of a file that has them after a ``#``: YAML, TOML, INI, shell, make, systemd."""
    comments = []
    for number, line in enumerate(text.split("\n"), 1):
        if "#" in line and (match := _HASH_COMMENT.match(line)):
            comments.append((number, match.start("comment"), bool(match["code"].strip()), match["comment"]))
    return list(_joined(comments))


def lua_passages(text: str) -> list[Passage]:
    """Return the comments of Lua source."""
    pattern = r"""--\[\[(?P<block>.*?)\]\]|--(?P<line>[^\n]*)|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
    comments = []
    for match in re.finditer(pattern, text, re.DOTALL):
        line = text.count("\n", 0, match.start()) + 1
        before = text[text.rfind("\n", 0, match.start()) + 1 : match.start()]
        if match["block"] is not None:
            comments.append(Passage(line, match["block"], COMMENT))
        elif match["line"] is not None:
            comments.append(Passage(line, match["line"], before))
    passages = [comment for comment in comments if comment.kind == COMMENT]
    single = ((line, len(before), bool(before.strip()), body) for line, body, before in comments if before != COMMENT)
    return passages + list(_joined(single))


def xml_passages(text: str) -> list[Passage]:
    """Return the comments of XML."""
    return [
        Passage(text.count("\n", 0, match.start()) + 1, match[1], COMMENT)
        for match in re.finditer(r"<!--(.*?)-->", text, re.DOTALL)
    ]


def _rst_passages(text: str) -> list[Passage]:
    return [Passage(1, rst_prose(text), DOCS)]


def _markdown_passages(text: str) -> list[Passage]:
    return [Passage(1, markdown_prose(text), DOCS)]


_READERS: dict[str, Callable[[str], list[Passage]]] = {
    ".rst": _rst_passages,
    ".md": _markdown_passages,
    ".lua": lua_passages,
    ".xml": xml_passages,
    ".snippet": xml_passages,
    **dict.fromkeys([".yml", ".yaml", ".toml", ".cfg", ".ini", ".sh", ".conf", ".service", ".example"], hash_passages),
}
_NO_SUFFIX = {"Makefile": hash_passages, "CHANGELOG": _rst_passages}


def passages_of(name: str, text: str) -> list[Passage]:
    """Return the prose of a file. Raises SyntaxError for Python that can't be parsed."""
    path = PurePosixPath(name)
    if path.suffix == ".py":
        return python_passages(text, name)
    reader = _READERS.get(path.suffix) or _NO_SUFFIX.get(path.name)
    if reader is None and text.startswith("#!") and "sh" in text.partition("\n")[0]:
        reader = hash_passages
    return reader(text) if reader else []


# --- Counting


def without_code(passage: Passage) -> str:
    """Return the text of `passage` with each piece of code in backticks as one word, its line breaks kept."""
    pattern = _DOUBLE_BACKTICKS if passage.kind == DOCS else _BACKTICKS
    return pattern.sub(lambda match: "code" + "\n" * match[0].count("\n"), passage.text)


def hits_of(passage: Passage) -> list[Hit]:
    """Return the markers in `passage`, in the order of the text. A word that two rules match counts once."""
    text = without_code(passage)
    starts: dict[int, str] = {}
    if passage.kind in (COMMENT, DOCSTRING):
        for opening in _OPENING.finditer(text):
            end = _SENTENCE_END.search(text, opening.end())
            if end is None or not end[0].startswith("?"):
                starts[opening.start("word")] = OPENING
    position = 0
    while match := _MARKER.search(text, position):
        assert match.lastindex is not None
        starts.setdefault(match.start(), _LABELS[match.lastindex - 1])
        position = match.start() + 1  # markers may overlap, as in `that there is no`
    lines = passage.text.split("\n")
    hits = []
    for start, marker in sorted(starts.items()):
        offset = text.count("\n", 0, start)
        hits.append(Hit(passage.line + offset, marker, " ".join(lines[offset].split())))
    return hits


def words_in(passage: Passage) -> int:
    """Return how many words `passage` has."""
    return len(_WORD.findall(without_code(passage)))


def folder_of(name: str) -> str:
    """Return the folder of a file of the repository; ``.`` for the top."""
    return str(PurePosixPath(name).parent)


def count(files: Iterable[tuple[str, str]]) -> dict[str, Count]:
    """Count `files`, pairs of name and text, per folder. Folders without prose are left out. Raises SyntaxError."""
    folders: dict[str, Count] = {}
    for name, text in files:
        for passage in passages_of(name, text):
            if words := words_in(passage):
                total = folders.setdefault(folder_of(name), Count())
                total.words += words
                total.hits.extend((name, hit) for hit in hits_of(passage))
    return dict(sorted(folders.items()))


def long_test_names(files: Iterable[tuple[str, str]]) -> list[tuple[str, int, str]]:
    """Return file, line and name of each test function in ``tests/`` whose name is longer than `LONGEST_TEST_NAME`."""
    pattern = re.compile(rf"^[ \t]*(?:async[ \t]+)?def[ \t]+(test_\w{{{LONGEST_TEST_NAME - 4},}})", re.MULTILINE)
    return [
        (name, text.count("\n", 0, match.start(1)) + 1, match[1])
        for name, text in files
        if name.startswith("tests/") and name.endswith(".py")
        for match in pattern.finditer(text)
    ]


# --- Command line


def repository_files(root: Path) -> list[tuple[str, str]]:
    """Return name and text of each file that git tracks, or would: new files count too."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout.split("\0")
    wanted = [
        name
        for name in names
        if PurePosixPath(name).suffix in (".py", "", *_READERS) and (root / name).is_file()  # not those just removed
    ]
    return [(name, (root / name).read_text(encoding="utf-8", errors="replace")) for name in sorted(set(wanted))]


def checked_folders(root: Path) -> list[str] | None:
    """Return the folders that ``pyproject.toml`` lists; None without a list, which means all."""
    with (root / "pyproject.toml").open("rb") as file:
        settings = tomllib.load(file).get("tool", {}).get("esl_apps", {}).get("style", {})
    folders = settings.get("folders")
    return None if folders is None else [folder.rstrip("/") or "." for folder in folders]


def failures(folders: dict[str, Count], checked: list[str] | None) -> list[str]:
    """Return a line for each checked folder above `LIMIT`, and for each name in the list that no folder has."""
    problems = []
    for name in folders if checked is None else checked:
        total = folders.get(name)
        if total is None:
            problems.append(
                f"{name}: listed in pyproject.toml under [tool.esl_apps.style], but no such folder has prose"
            )
        elif len(total.hits) * 1000 > LIMIT * total.words:
            advice = f"list them with: python tools/style.py --list --folder {name}"
            problems.append(f"{name}: {total.rate:.1f} markers per 1,000 words, more than {LIMIT}; {advice}")
    return problems


def _within(name: str, folder: str) -> bool:
    return folder in (".", name) or name.startswith(folder + "/")


def _table(folders: dict[str, Count], checked: list[str] | None) -> Iterator[str]:
    width = max([len(name) for name in folders] + [len("folder")])
    yield f"{'folder':{width}}   words  markers   rate"
    for name, total in folders.items():
        mark = "  checked" if checked is None or name in checked else ""
        yield f"{name:{width}}  {total.words:6}  {len(total.hits):7}  {total.rate:5.1f}{mark}"
    everything = Count(
        sum(total.words for total in folders.values()), [hit for total in folders.values() for hit in total.hits]
    )
    yield f"{'all':{width}}  {everything.words:6}  {len(everything.hits):7}  {everything.rate:5.1f}"


def main(argv: list[str], root: Path) -> int:
    """Run the program on the repository at `root`. Returns the exit status."""
    gc.disable()  # the syntax trees have no cycles; collecting takes longer than all the rest
    parser = argparse.ArgumentParser(prog="tools/style.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--list", action="store_true", help="print each marker as FILE:LINE: MARKER: TEXT")
    parser.add_argument("--folder", metavar="FOLDER", help="show only this folder and those below it")
    parser.add_argument("--quiet", action="store_true", help="print only the checked folders that fail")
    parser.add_argument(
        "--names",
        action="store_true",
        help=f"list test functions whose names have more than {LONGEST_TEST_NAME} characters",
    )
    options = parser.parse_args(argv)
    files = repository_files(root)
    if options.names:
        names = long_test_names(files)
        for file, line, name in names:
            print(f"{file}:{line}: {name} has {len(name)} characters, more than {LONGEST_TEST_NAME}")
        return 1 if names else 0
    try:
        folders = count(files)
    except SyntaxError as error:
        print(f"{error.filename}:{error.lineno}: can't be parsed: {error.msg}", file=sys.stderr)
        return 2
    checked = checked_folders(root)
    problems = failures(folders, checked)
    if options.folder is not None:
        wanted = PurePosixPath(options.folder).as_posix()
        folders = {name: total for name, total in folders.items() if _within(name, wanted)}
    if options.list:
        for total in folders.values():
            for file, hit in total.hits:
                print(f"{file}:{hit.line}: {hit.marker}: {hit.text}")
    elif not options.quiet:
        print("\n".join(_table(folders, checked)))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent.parent))
