"""The runner of README blocks: what it takes for a block, what it executes, and how it fails."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scripts.readme_blocks import BlockError, main, output_matches, parse


def run(tmp_path: Path, text: str, *flags: str) -> int:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    return main([*flags, str(readme)])


def test_finds_bash_and_python_and_nothing_else():
    text = "# T\n\n```bash\ntrue\n```\n```json\n{}\n```\n~~~python\npass\n~~~\n```\nplain\n```\n"

    blocks = parse(text, "R")

    assert [(b.line, b.language, b.code) for b in blocks] == [
        (4, "bash", "true\n"),
        (10, "python", "pass\n"),
    ]


def test_a_longer_fence_may_hold_a_shorter_one_and_indentation_is_removed():
    text = "  ````bash\n  ```\n    echo\n  ````\n"

    (block,) = parse(text, "R")

    assert block.code == "```\n  echo\n"


def test_a_comment_reaches_its_block_across_empty_lines_but_not_across_text():
    near, far = parse(
        "<!-- not executed: slow -->\n\n```bash\na\n```\n"
        "<!-- not executed: slow -->\nBut this one is.\n```bash\nb\n```\n",
        "R",
    )

    assert near.skip_reason == "slow"
    assert far.skip_reason is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```bash\ntrue\n", "R:1: this code block is never closed"),
        ("<!-- not executed -->\n```bash\ntrue\n```\n", "R:3: write why"),
        ("```sh\ntrue\n```\n", "R:2: blocks of 'sh' would never be executed"),
        ("<!-- output -->\n```text\nhi\n```\n", "R:3: there is no block before"),
        ("```bash\ntrue\n```\n<!-- output -->\n```json\n1\n```\n", "R:6: expected output goes"),
        ("<!-- background -->\n```text\nhi\n```\n", "R:3: only bash and python blocks"),
    ],
    ids=["unclosed", "no-reason", "sh", "orphaned-output", "output-language", "background-text"],
)
def test_refuses_what_makes_no_sense(text: str, message: str):
    with pytest.raises(BlockError, match=f"^{message}"):
        parse(text, "R")


@pytest.mark.parametrize(
    ("expected", "printed", "matches"),
    [
        ("a\nb\n", "a  \nb\n\n", True),
        ("a\n", "a\nb\n", False),
        ("a\nb\n", "a\n", False),
        ("took ... s\n", "took 1.2 s\n", True),
        ("took ... s\n", "took 1.2 s now\n", False),
        ("a\n...\nz\n", "a\nb\nc\nz\n", True),
        ("a\n...\nz\n", "a\nz\n", True),
        ("a\n...\nz\n", "a\nb\n", False),
        ("...\n", "", True),
        ("1.5 (x)\n", "1x5 (x)\n", False),
        ("", "", True),
        ("", "a\n", False),
    ],
)
def test_output_matches(expected: str, printed: str, matches: bool):
    assert output_matches(expected, printed) is matches


def test_blocks_share_a_folder_and_run_in_order(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    status = run(
        tmp_path,
        "```bash\necho 21 > n\n```\n"
        "```python\nwith open('n') as file:\n    print(2 * int(file.read()), 'in all')\n```\n"
        "<!-- output -->\n```text\n42 ...\n```\n"
        "<!-- not executed: it would fail -->\n```bash\nfalse\n```\n",
    )

    printed = capsys.readouterr().out
    assert status == 0, printed
    assert "README.md:2 bash: echo 21 > n  ok, 0." in printed
    assert "README.md:14 bash: false  not executed: it would fail" in printed
    assert "2 blocks executed, 1 not executed" in printed


@pytest.mark.parametrize(
    "code",
    ["false\ntrue", "false | true", "echo $UNSET_VARIABLE_OF_THIS_TEST"],
    ids=["errexit", "pipefail", "nounset"],
)
def test_bash_is_strict(tmp_path: Path, code: str):
    assert run(tmp_path, f"```bash\n{code}\n```\n") == 1


def test_a_failing_block_is_shown_with_its_line_and_output_and_ends_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = run(
        tmp_path,
        "text\n\n```bash\necho to stdout\necho to stderr >&2\nexit 3\n```\n"
        "```bash\necho never > ../never\n```\n",
    )

    printed = capsys.readouterr().out
    assert status == 1
    assert "README.md:4 bash: echo to stdout  FAILED: ended with 3" in printed
    assert "  stdout:\n    to stdout\n  stderr:\n    to stderr" in printed
    assert "never" not in printed


def test_other_output_fails_and_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    status = run(tmp_path, "```bash\necho b\n```\n<!-- output -->\n```text\na\n```\n")

    printed = capsys.readouterr().out
    assert status == 1
    assert "printed something else" in printed
    assert "  -a\n  +b" in printed


def test_a_missing_file_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "absent.md")]) == 1
    assert "absent.md" in capsys.readouterr().out


def test_a_background_block_serves_the_others_and_is_stopped_cleanly(tmp_path: Path):
    log = tmp_path / "log"
    status = run(
        tmp_path,
        "<!-- background -->\n"
        f"```bash\ntrap 'echo stopped >> {log}; exit 0' TERM\necho $$ > {log}\ntouch up\n"
        "while true; do sleep 0.05; done\n```\n"
        "```bash\nuntil test -e up; do sleep 0.05; done\n```\n",
    )

    assert status == 0
    pid, stopped = log.read_text().split()
    assert stopped == "stopped"
    assert not alive(int(pid))


def test_a_background_block_that_fails_fails_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    status = run(
        tmp_path,
        "<!-- background -->\n```bash\necho port in use >&2; touch down; exit 7\n```\n"
        "```bash\nuntil test -e down; do sleep 0.05; done; sleep 0.3\n```\n",
    )

    printed = capsys.readouterr().out
    assert status == 1
    assert "the background block ended with 7" in printed
    assert "port in use" in printed


def test_a_block_over_its_time_is_stopped_with_what_it_started(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    pid_file = tmp_path / "pid"

    status = run(
        tmp_path, f"```bash\nsleep 3600 & echo $! > {pid_file}; wait\n```\n", "--timeout", "2"
    )

    assert status == 1
    assert "still running after 2 s" in capsys.readouterr().out
    assert not alive(int(pid_file.read_text()))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
