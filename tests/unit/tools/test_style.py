"""The style check: which text counts as prose, which phrases it finds, and what fails."""

import io
import subprocess
import sys
import tokenize
from pathlib import Path
from textwrap import dedent

import pytest

from tools import style

ROOT = Path(__file__).parents[3]


def markers(name: str, text: str) -> list[tuple[int, str]]:
    """Return line and marker of each hit in a file."""
    return [(hit.line, hit.marker) for passage in style.passages_of(name, text) for hit in style.hits_of(passage)]


def in_python(text: str) -> list[tuple[int, str]]:
    return sorted(markers("x.py", dedent(text).lstrip("\n")))


def in_rst(text: str) -> list[tuple[int, str]]:
    return markers("x.rst", dedent(text).lstrip("\n"))


# --- Text that isn't prose


@pytest.mark.parametrize(
    "code",
    [
        'QUERY = "whoever is no somebody"',
        'QUERY = """\n# whoever\n"""',
        "QUERY = '# nobody'",
        'QUERY = "\\"# nobody"',
        'QUERY = b"# nobody"',
        'QUERY = f"# {nobody} somebody"',
        'QUERY = (\n    "# whoever "\n    "# nobody"\n)',
        "whoever = nobody(him)",
        'ask("whoever", whom="nobody")',
        'print(rows["whoever"])',
        'log.info("call_ended", extra={"whoever": reference})',
        "raise Refused from nobody",
        "raise",
    ],
)
def test_python_code_is_not_prose(code: str) -> None:
    assert in_python(code) == []


@pytest.mark.parametrize(
    "pragma", ["# type: ignore[nobody]", "# noqa: nobody", "#!/usr/bin/nobody", "# fmt: skip nobody"]
)
def test_python_pragma_is_not_prose(pragma: str) -> None:
    assert style.python_passages(f"{pragma}\nx = 1\n") == []


@pytest.mark.parametrize("code", ["``is no``", "`nobody`", "``a\nnobody``"])
def test_backticks_in_comment_are_code(code: str) -> None:
    comment = "\n".join(f"# {line}" for line in f"Return {code} as is.".split("\n"))
    assert in_python(comment) == []


def test_backticks_keep_the_line_of_later_markers() -> None:
    assert in_python("# Return ``a\n# b`` to\n# nobody.\n") == [(3, "nobody")]


@pytest.mark.parametrize(
    "block",
    [
        "Run::\n\n    nobody\n\n    whoever\n",
        ".. code-block:: python\n\n   nobody = whoever\n",
        ".. code-block:: nobody\n   :caption: x\n\n   whoever\n",
        "  .. code:: sh\n\n     nobody\n",
        ">>> nobody(whoever)\n",
        "* Run::\n\n      nobody\n",
        "1. Run::\n\n       nobody\n",
        "The ``nobody`` user.\n",
    ],
)
def test_rst_code_is_not_prose(block: str) -> None:
    assert in_rst(block) == []


@pytest.mark.parametrize(
    "block",
    [
        "Run::\n\n    ls\n\nAnd nobody.\n",
        "* Run::\n\n      ls\n\n  And nobody.\n",
        ".. code-block:: sh\n\n   ls\n\nAnd nobody.\n",
        ".. note::\n\n   It is for us\n   and nobody.\n",
    ],
)
def test_rst_text_next_to_code_is_prose(block: str) -> None:
    assert in_rst(block) == [(block[: block.index("nobody")].count("\n") + 1, "nobody")]


def test_docstring_literal_block_is_not_prose() -> None:
    code = '''
    def f():
        """Run::

            nobody

        Then tell somebody.
        """
    '''
    assert in_python(code) == [(6, "somebody")]


@pytest.mark.parametrize("fence", ["```", "~~~", "````"])
def test_markdown_fence_is_not_prose(fence: str) -> None:
    text = f"Nobody\n\n{fence}sh\nnobody\n```x\n{fence}\n\nsomebody `whoever`\n"
    assert markers("x.md", text) == [(1, "nobody"), (8, "somebody"), (8, "whoever")]


def test_other_file_types_have_no_prose() -> None:
    for name in ("x.wav", "x.esl", "LICENSE", "x.csv", "x.svg", "x.txt"):
        assert markers(name, "# nobody") == []


def test_comment_after_a_raw_string_is_prose() -> None:
    """A raw string can't end in a backslash: the first string ends after the spaces."""
    assert in_python("QUERY = r'\\'  '# nobody'") == [(1, "nobody")]


# --- Where prose is


def test_python_prose_is_found_in_each_place() -> None:
    code = '''
    """Nobody."""

    LIMIT = 5  # nobody
    """For whoever.

    Nobody.
    """

    class A:
        """Somebody."""

        size: int
        """Anew."""

        async def f(self):
            """Beside."""
            if self:
                raise ValueError("nobody")
            raise ValueError(f"{self} and " "nobody") from None
    '''
    assert in_python(code) == [
        (1, "nobody"),
        (3, "nobody"),
        (4, "whoever"),
        (6, "nobody"),
        (10, "somebody"),
        (13, "anew"),
        (16, "beside"),
        (18, "nobody"),
        (19, "nobody"),
    ]


@pytest.mark.parametrize(
    "call",
    [
        'log.info("nobody")',
        'self.log.exception("%s: nobody", x)',
        'logging.warning("a" if x else "nobody")',
        'log.error("call_lost", extra={"reason": "nobody"})',
        'log.error("call_lost", extra={"reason": f"{x} nobody"})',
        'print("a", "nobody")',
        'print("nobody", file=sys.stderr)',
        'print(f"{x!r:>{width}} nobody")',
        'sys.exit("nobody")',
        'sys.stderr.write("nobody")',
        'parser.error("nobody")',
        'parser.add_argument("-x", help="nobody")',
        'parser = ArgumentParser(description="nobody")',
        'sub = commands.add_parser("x", help="nobody")',
        'raise ConfigError(path, "nobody")',
        'raise Refused(f"{x} nobody")',
        'raise Refused("%s nobody" % x)',
    ],
)
def test_message_is_prose(call: str) -> None:
    assert in_python(call) == [(1, "nobody")]


def test_message_over_several_lines_gives_the_line_of_the_marker() -> None:
    assert in_python('raise ValueError(\n    "the first "\n    "then nobody"\n)\n') == [(3, "nobody")]


def test_message_inside_a_message_counts_once() -> None:
    assert in_python('raise Refused(log.error("nobody"))') == [(1, "nobody")]


def test_console_string_of_another_object_is_not_a_message() -> None:
    assert in_python('file.write("nobody")\npool.exit("nobody")\nerror("nobody")\n') == []


HASH_FILES = ["x.yml", "x.yaml", "x.toml", "x.cfg", "x.sh", "x.conf", "x.service", "x.env.example", "Makefile"]


@pytest.mark.parametrize("name", HASH_FILES)
def test_hash_comment_is_prose(name: str) -> None:
    lines = [
        "# nobody",
        "key: 'nobody # nobody'",
        'key: "a # nobody \\" # nobody"',
        "key: a#nobody",
        "echo $#",
        "key: don't  # it's nobody",
        "key: 1 # nobody",
        "key: 'a' # nobody",
    ]
    assert markers(name, "\n".join(lines)) == [(1, "nobody"), (6, "nobody"), (7, "nobody"), (8, "nobody")]


def test_shell_script_is_known_by_its_first_line() -> None:
    text = "#!/usr/bin/env bash\n# nobody\nexec make test\n"
    assert markers(".ci/run", text) == [(2, "nobody")]
    assert markers(".ci/data", text.partition("\n")[2]) == []


def test_lua_comment_is_prose() -> None:
    text = "-- nobody is\n-- no reader\nlocal a = '-- nobody'\n--[[ somebody\n\nis no ]]\nlocal b = 1 -- anew\n"
    assert sorted(markers("x.lua", text)) == [(1, "is no"), (1, "nobody"), (4, "somebody"), (6, "is no"), (7, "anew")]


def test_xml_comment_is_prose() -> None:
    assert markers("x.xml", '<a b="nobody">nobody</a>\n<!-- For\nwhoever -->\n') == [(3, "whoever")]


@pytest.mark.parametrize("name", ["CHANGELOG", "CHANGELOG.rst", "CHANGELOG.md", "docs/a.rst"])
def test_documents_are_prose(name: str) -> None:
    assert markers(name, "It is\nno way.\n") == [(1, "is no")]


def test_lexer_finds_the_comments_that_tokenize_finds() -> None:
    compared = 0
    for name, source in style.repository_files(ROOT):
        if name.endswith(".py"):
            tokens = tokenize.generate_tokens(io.StringIO(source).readline)
            expected = [(*token.start, token.string.rstrip()) for token in tokens if token.type == tokenize.COMMENT]
            found = [(line, column, text) for line, column, _, text in style.python_comments(source)]
            assert found == expected, name
            compared += len(expected)
    assert compared > 1000


# --- Markers


@pytest.mark.parametrize(
    ("text", "marker"),
    [
        ("there is no way", "is no"),
        ("there is\nno way", "is no"),
        ("there is\u00a0no way", "is no"),
        ("it stands there", "stand(s)"),
        ("they stand there", "stand(s)"),
        ("for whoever asks", "whoever"),
        ("NOBODY", "nobody"),
        ("nobody's", "nobody"),
        ("nobody\u2019s", "nobody"),
        ("for somebody", "somebody"),
        ("asks anew", "anew"),
        ("the node is told of it", "is told of"),
        ("the node is\ntold of it", "is told of"),
        ("beside it", "beside"),
        ("as ever", "as ever"),
        ("all that there is", "that there is"),
        ("he hears", "he/his/him"),
        ("his phone", "he/his/him"),
        ("ring him", "he/his/him"),
        ("He's away", "he/his/him"),
        ("stop, where it fails", ", where it/there/that/none/one"),
        ("stop, where\nthere are two", ", where it/there/that/none/one"),
        ("stop, where that fails", ", where it/there/that/none/one"),
        ("stop, where none is", ", where it/there/that/none/one"),
        ("stop, where one is", ", where it/there/that/none/one"),
    ],
)
def test_marker_is_found_in_every_kind_of_prose(text: str, marker: str) -> None:
    for kind in (style.COMMENT, style.DOCSTRING, style.DOCS, style.MESSAGE):
        assert [hit.marker for hit in style.hits_of(style.Passage(1, text, kind))] == [marker]


@pytest.mark.parametrize(
    "text",
    [
        "there is none, this node",
        "is\n\nno",
        "the standard is understood, standing",
        "besides, the newbie",
        "as everyone",
        "that there are",
        "the history of the shed, him_ and hé",
        "stop where it fails",
        "stop, where items are",
        "whosoever, anybody, no body",
    ],
)
def test_similar_words_are_not_markers(text: str) -> None:
    assert style.hits_of(style.Passage(1, text, style.DOCS)) == []


@pytest.mark.parametrize("word", ["What", "Who", "Whoever", "Whom", "Of"])
@pytest.mark.parametrize(
    "text",
    [
        "{} is rung.",
        "Ring it. {} is rung.",
        "Ring it! {} is rung",
        "Is it up? {} is rung.",
        "Ring it (twice.) {} is rung.",
        "Ring it.\n{} is rung.",
        "Ring it\n\n{} is rung.",
        "Phones:\n* {} is rung",
        "Phones:\n- {} is rung",
        "Phones:\n1. {} is rung",
        "\u201c{} is rung.",
        "Ring it (or not). * {} is rung.",
        "({} is rung.)",
        "{} is rung. Is it?",
        "{} is rung\n\nIs it?",
    ],
)
def test_sentence_opening_is_found(word: str, text: str) -> None:
    for kind in (style.COMMENT, style.DOCSTRING):
        assert [hit.marker for hit in style.hits_of(style.Passage(1, text.format(word), kind))] == [style.OPENING]


@pytest.mark.parametrize(
    "text",
    [
        "What is rung?",
        "Ring it. Who is rung?",
        "Who is rung, when the first phone\nis busy?",
        "(What is rung?)",
        "Whatever is rung.",
        "Often rung.",
        "of the legs that are up",
        "The Who is a band.",
        "See RFC 3261: Of the rest",
        "WHAT is rung.",
    ],
)
def test_question_or_later_word_does_not_open_a_sentence(text: str) -> None:
    for kind in (style.COMMENT, style.DOCSTRING):
        assert style.hits_of(style.Passage(1, text, kind)) == []


def test_sentence_opening_counts_only_in_comments_and_docstrings() -> None:
    for kind in (style.DOCS, style.MESSAGE):
        assert style.hits_of(style.Passage(1, "What is rung.", kind)) == []


def test_comment_lines_share_sentences_only_in_one_column() -> None:
    assert in_python("# there is\n# no way\n") == [(1, "is no")]
    assert in_python("x = 1  # there is\n#        no way\n") == []
    assert in_python("x = 1  # there is\n       # no way\n") == [(1, "is no")]
    assert in_python("x = 1  # there is\ny = 2  # no way\n") == []
    assert in_python("# there is\n\n# no way\n") == []


def test_trailing_comments_each_open_a_sentence() -> None:
    assert in_python("x = 1  # What is up\ny = 2  # Who asked\n") == [(1, style.OPENING), (2, style.OPENING)]


def test_overlapping_markers_both_count() -> None:
    passage = style.Passage(1, "all that there is no", style.DOCS)
    assert [hit.marker for hit in style.hits_of(passage)] == ["that there is", "is no"]


def test_word_that_two_rules_match_counts_once() -> None:
    passage = style.Passage(1, "Whoever asks.", style.COMMENT)
    assert [hit.marker for hit in style.hits_of(passage)] == [style.OPENING]


# --- Counting


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        ("=== --- | * … —", 0),
        ("one two\nthree", 3),
        ("don't re-ring it", 3),
        ("``a b c`` d", 2),
        ("5 % of 1,000", 3),
        ("über ça", 2),
        ("(that's) --flag $NAME", 3),
    ],
)
def test_words_are_counted_as_a_reader_would(text: str, words: int) -> None:
    assert style.words_in(style.Passage(1, text, style.DOCS)) == words


def test_rate_is_exact_per_folder() -> None:
    counts = style.count(
        [
            ("a/x.py", '"""' + "word " * 1999 + 'nobody"""\n'),
            ("a/y.rst", "word " * 1998 + "is no"),
            ("a/b/z.py", "# nobody\n"),
            ("top.md", "one two"),
            ("a/empty.py", ""),
            ("c/code.py", "x = 1\n"),
        ]
    )
    assert {name: (total.words, len(total.hits), total.rate) for name, total in counts.items()} == {
        ".": (2, 0, 0.0),
        "a": (4000, 2, 0.5),
        "a/b": (1, 1, 1000.0),
    }


@pytest.mark.parametrize(("words", "fails"), [(2000, False), (1999, True)])
def test_folder_fails_only_above_the_limit(words: int, fails: bool) -> None:
    counts = style.count([("a/x.rst", "nobody " * 3 + "word " * (words - 3))])
    assert [problem.partition(":")[0] for problem in style.failures(counts, ["a"])] == ["a"] * fails


def test_only_listed_folders_fail() -> None:
    counts = style.count([("a/x.rst", "nobody"), ("b/x.rst", "nobody"), ("c/x.rst", "fine")])
    assert style.failures(counts, []) == []
    assert [problem.partition(":")[0] for problem in style.failures(counts, ["b", "c"])] == ["b"]
    assert [problem.partition(":")[0] for problem in style.failures(counts, None)] == ["a", "b"]


def test_listed_folder_that_does_not_exist_fails() -> None:
    assert "a: listed in pyproject.toml" in style.failures({}, ["a"])[0]


# --- Names of tests


def test_long_test_names_are_found_under_tests_only() -> None:
    fits, long = "test_" + "a" * 55, "test_" + "b" * 56
    source = f"def {fits}():\n    pass\n\nclass TestIt:\n    async def {long}(self):\n        {long}()\n"
    files = [("tests/unit/test_a.py", source), ("tools/test_b.py", source), ("tests/c.rst", source)]
    assert style.long_test_names(files) == [("tests/unit/test_a.py", 5, long)]


# --- The command line


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one clean folder, one that isn't, and an ignored one."""
    for name, text in {
        ".gitignore": "build/\n",
        "pyproject.toml": '[tool.esl_apps.style]\nfolders = ["clean/"]\n',
        "clean/a.py": "# Ring the phone.\n",
        "bad/b.py": "# Ring it.\n# There is no phone.\n",
        "bad/below/c.rst": "whoever\n",
        "build/d.rst": "nobody\n",
        "tests/test_e.py": f"def test_{'a' * 60}(): pass\n",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    return tmp_path


def test_table_has_a_row_per_folder(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert style.main([], repository) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["folder", "words", "markers", "rate"],
        ["bad", "6", "1", "166.7"],
        ["bad/below", "1", "1", "1000.0"],
        ["clean", "3", "0", "0.0", "checked"],
        ["all", "10", "2", "200.0"],
    ]


def test_list_prints_each_hit_of_a_folder(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert style.main(["--list", "--folder", "bad/"], repository) == 0
    assert capsys.readouterr().out.splitlines() == [
        "bad/b.py:2: is no: There is no phone.",
        "bad/below/c.rst:1: whoever: whoever",
    ]


def test_folder_does_not_match_a_longer_name(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert style.main(["--list", "--folder", "ba"], repository) == 0
    assert capsys.readouterr().out == ""


def test_checked_folder_above_the_limit_fails(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "clean/a.py").write_text("# Ring nobody.\n", encoding="utf-8")
    assert style.main(["--quiet"], repository) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("clean: 500.0 markers per 1,000 words")


def test_without_a_list_every_folder_is_checked(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "pyproject.toml").write_text("", encoding="utf-8")
    assert style.main(["--quiet"], repository) == 1
    assert [line.partition(":")[0] for line in capsys.readouterr().err.splitlines()] == ["bad", "bad/below"]


def test_file_that_cannot_be_parsed_is_named(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "clean/broken.py").write_text("x = 1\ndef (\n", encoding="utf-8")
    assert style.main([], repository) == 2
    assert capsys.readouterr().err.startswith("clean/broken.py:2: ")


def test_file_that_was_removed_is_skipped(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "add", "."], cwd=repository, check=True)
    (repository / "bad/b.py").unlink()
    assert style.main(["--list"], repository) == 0
    assert capsys.readouterr().out == "bad/below/c.rst:1: whoever: whoever\n"


def test_names_lists_long_test_names(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert style.main(["--names"], repository) == 1
    assert capsys.readouterr().out.startswith("tests/test_e.py:1: test_aaa")
    (repository / "tests/test_e.py").unlink()
    assert style.main(["--names"], repository) == 0


def test_program_passes_on_this_repository() -> None:
    done = subprocess.run(
        [sys.executable, "tools/style.py", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
