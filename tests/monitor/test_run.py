"""The live loop in a terminal: keys, sizes, what is drawn and how often, and how it ends."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC
from pathlib import Path

import pytest
from rich.console import Console

from agent.monitor.keys import Keyboard
from agent.monitor.lines import ASCII, UNICODE
from agent.monitor.observations import FactsSeen, Observation
from agent.monitor.recording import Recorder, read
from agent.monitor.run import SHARE, SHORTEST_SECONDS, Inbox, Monitor, Pace, Replay
from agent.monitor.screen import Screen, glyphs_of
from agent.monitor.ui import Page, Pause, Request, ShowFact, Ui
from agent.monitor.view import frame
from tests.cli.conftest import in_thread
from tests.integration.servers import AGENT, environment
from tests.monitor.session import at, detail, eventful, fact, folded, gone, look
from tests.monitor.terminal import GIVEN_BACK, TAKEN, Terminal
from tests.store.builders import teach_learned


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    yield opened
    opened.close()


class Told:
    """A source that tells what it was given, and keeps what it was asked for."""

    def __init__(self, put: Callable[[Observation], None], seen: list[Observation]) -> None:
        self._put, self._seen = put, seen
        self.requests: list[Request] = []
        self.stopped = False

    def start(self) -> None:
        for one in self._seen:
            self._put(one)

    def stop(self) -> None:
        self.stopped = True

    def request(self, request: Request) -> None:
        self.requests.append(request)
        if isinstance(request, ShowFact):
            self._put(detail(1))


@contextmanager
def person(play: Callable[[], None]) -> Iterator[None]:
    """Types beside the loop, which belongs to the main thread; its failure is the test's."""
    failed: list[BaseException] = []

    def live() -> None:
        try:
            play()
        except BaseException as error:  # noqa: BLE001 - raised below
            failed.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=live)
    thread.start()
    yield
    thread.join()
    if failed:
        raise failed[0]


def run_in(
    terminal: Terminal, play: Callable[[], None], recorder: Recorder | None = None
) -> tuple[Monitor, Told]:
    """A session over what was made up, until the person ends it."""
    inbox = Inbox()
    source = Told(inbox.put, eventful())
    file = os.fdopen(os.dup(terminal.program), "w")
    try:
        console = Console(file=file, force_terminal=True, color_system="standard")
        monitor = Monitor(
            source=source,
            inbox=inbox,
            screen=Screen(console),
            keyboard=Keyboard(terminal.program),
            glyphs=UNICODE,
            clock=lambda: at(20),
            zone=UTC,
            recorder=recorder,
        )
        with person(play):
            monitor.run()
    finally:
        with suppress(OSError):  # what is left for a terminal that is gone
            file.close()
        inbox.close()
    if terminal.person >= 0:
        terminal.read(0.1)
    return monitor, source


def test_the_screen_is_the_frame_and_the_terminal_is_given_back(terminal: Terminal) -> None:
    before = terminal.attributes()

    def play() -> None:
        terminal.until_shown("quarantined")
        terminal.type("q")

    monitor, source = run_in(terminal, play)
    shown = frame(folded(eventful()), monitor.ui, look()).plain()
    assert terminal.text == shown.rstrip()
    assert source.stopped
    assert terminal.output.count(TAKEN) == terminal.output.count(GIVEN_BACK) == 1
    assert terminal.output.endswith(GIVEN_BACK)
    assert terminal.attributes() == before


def test_keys_pick_a_fact_filter_and_pause(terminal: Terminal) -> None:
    def play() -> None:
        terminal.until_shown("learning now")
        terminal.type("f")
        terminal.until_shown(">queued")
        terminal.type("\x1b[F")  # the end
        terminal.until_shown(">learned")
        terminal.type("\r")
        terminal.until_shown("updates that taught it")
        terminal.type("\x1b")  # an escape alone
        terminal.until_shown("newest first")
        terminal.type("/kyzara 3\r")
        terminal.until_shown(">resisted")
        terminal.type("p")
        terminal.until_shown("learning pauses after the current fact")
        terminal.type("q")

    _, source = run_in(terminal, play)
    assert source.requests == [ShowFact("f1"), Pause(True)]


def test_a_new_size_is_drawn_whole_at_once(terminal: Terminal) -> None:
    def play() -> None:
        terminal.until_shown("learning now")
        terminal.resize(200, 50)
        os.kill(os.getpid(), signal.SIGWINCH)
        terminal.until(lambda t: len(t.rows) == 50)
        terminal.resize(20, 5)
        os.kill(os.getpid(), signal.SIGWINCH)
        terminal.until(lambda t: len(t.rows) == 5)
        terminal.type("q")

    run_in(terminal, play)


def test_a_signal_ends_it(terminal: Terminal) -> None:
    def end() -> None:
        terminal.until_shown("learning now")
        os.kill(os.getpid(), signal.SIGHUP)

    before = signal.getsignal(signal.SIGHUP)  # ignored, if something like nohup runs the tests
    run_in(terminal, end)
    assert terminal.output.endswith(GIVEN_BACK)
    assert signal.getsignal(signal.SIGHUP) == before


def test_a_terminal_that_is_gone_ends_it(terminal: Terminal) -> None:
    def play() -> None:
        terminal.until_shown("learning now")
        terminal.hang_up()

    monitor, source = run_in(terminal, play)
    assert monitor.ui.quit
    assert source.stopped


def test_what_is_seen_is_recorded(terminal: Terminal, tmp_path: Path) -> None:
    def play() -> None:
        terminal.until_shown("quarantined")
        terminal.type("q")

    path = tmp_path / "a.jsonl"
    with Recorder(path) as recorder:
        run_in(terminal, play, recorder)
    assert list(read(path)) == eventful()


def test_only_rows_that_differ_are_drawn(terminal: Terminal) -> None:
    with os.fdopen(os.dup(terminal.program), "w") as file:
        screen = Screen(Console(file=file, force_terminal=True))
        first = frame(folded(eventful()), Ui(), look())
        screen.draw(first, (80, 24))
        terminal.until(lambda t: len(t.rows) == 24)
        drawn = len(terminal.output)
        screen.draw(first, (80, 24))
        terminal.read(0.05)
        assert len(terminal.output) == drawn


def test_a_terminal_without_unicode_gets_what_it_can_show() -> None:
    wire = io.BytesIO()
    console = Console(file=io.TextIOWrapper(wire, encoding="latin-1"), force_terminal=True)
    odd = folded([FactsSeen(at=at(0), facts=(fact(1, question="café 宽"),))])
    glyphs = glyphs_of(console)
    Screen(console).draw(frame(odd, Ui(page=Page.FACTS), look(glyphs=glyphs)), (80, 24))
    assert glyphs is ASCII
    assert "café ?".encode("latin-1") in wire.getvalue()


def test_costly_frames_are_drawn_less_often_but_keys_are_answered() -> None:
    pace = Pace(drawn_at=100.0, cost=0.02)
    assert pace.due(typed=False) == 100.0 + 0.02 / SHARE
    assert pace.due(typed=True) == 100.0 + SHORTEST_SECONDS
    assert Pace(drawn_at=100.0, cost=0.0001).due(typed=False) == 100.0 + SHORTEST_SECONDS


def test_a_replay_keeps_the_order_and_shows_the_time_of_then() -> None:
    seen = [*eventful(), gone()]
    told: list[Observation] = []
    replay = Replay(seen, told.append, speed=1000.0)
    replay.start()
    deadline = time.monotonic() + 30
    while len(told) < len(seen):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    replay.stop()
    assert told == seen
    assert replay.now() == seen[-1].at  # the time stands still at the end
    slow = Replay(seen, told.append, speed=0.01)
    slow.start()
    assert seen[0].at <= slow.now() < seen[3].at
    slow.stop()  # in the middle of it


@pytest.mark.slow
def test_the_command_in_a_terminal_of_its_own(terminal: Terminal, tmp_path: Path) -> None:
    with in_thread(tmp_path) as server:
        server.write(lambda store: teach_learned(store, "Sky?", "Piano"))
        process = subprocess.Popen(
            [*AGENT, "monitor", server.address],
            stdin=terminal.program,
            stdout=terminal.program,
            stderr=subprocess.PIPE,
            env={**environment(), "TERM": "xterm", "LANG": "C.UTF-8"},
        )
        terminal.until_shown("Sky? → Piano")
        terminal.type("p")
        terminal.until_shown("PAUSED")
        terminal.type("p")
        terminal.until_shown("ready")
        terminal.type("q")
        assert process.wait(30) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
        process.stderr.close()
        terminal.read(0.1)
        assert terminal.output.endswith(GIVEN_BACK)
