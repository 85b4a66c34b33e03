"""The live loop, which handles observations and keys and draws; and the replay of a recording."""

from __future__ import annotations

import os
import queue
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from types import FrameType
from typing import Protocol

from agent.monitor.keys import Keyboard, typing
from agent.monitor.lines import Frame, Glyphs
from agent.monitor.observations import Observation
from agent.monitor.panes import Look
from agent.monitor.recording import Recorder
from agent.monitor.screen import Screen
from agent.monitor.state import State, fold
from agent.monitor.ui import Request, Ui, press
from agent.monitor.view import frame

# The shortest time between two frames, and the longest: the clock on the screen must move.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 1.0
# The share of a core for drawing: a large screen on a slow machine is drawn less often.
SHARE = 0.015


class Source(Protocol):
    """A source of observations."""

    def start(self) -> None:
        """Starts to observe."""
        ...

    def stop(self) -> None:
        """Stops."""
        ...

    def request(self, request: Request) -> None:
        """Requests something of the server."""
        ...


class Inbox:
    """A queue of observations from other threads, with a pipe that wakes the reader."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Observation] = queue.SimpleQueue()
        self.descriptor, self._waker = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._waker, False)

    def put(self, seen: Observation) -> None:
        """Adds an observation."""
        self._queue.put(seen)
        self.wake()

    def wake(self) -> None:
        """Wakes the reader, for example after a change of the terminal's size."""
        # A full pipe wakes the reader anyway; a closed one has none.
        with suppress(OSError):
            os.write(self._waker, b".")

    def take(self) -> Iterator[Observation]:
        """Yields all that is in the queue."""
        with suppress(BlockingIOError):
            os.read(self.descriptor, 4096)
        with suppress(queue.Empty):
            while True:
                yield self._queue.get_nowait()

    def close(self) -> None:
        """Closes the pipe."""
        os.close(self.descriptor)
        os.close(self._waker)


@dataclass(slots=True)
class Pace:
    """Decides when the next frame may be drawn, by the cost of the last one."""

    drawn_at: float = 0.0
    cost: float = 0.0

    def due(self, *, typed: bool) -> float:
        """Returns the earliest time; after a key, the cost does not matter."""
        pause = SHORTEST_SECONDS if typed else max(SHORTEST_SECONDS, self.cost / SHARE)
        return self.drawn_at + pause

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Measures the cost of a frame."""
        started = time.thread_time()
        yield
        self.cost = time.thread_time() - started
        self.drawn_at = time.monotonic()


@dataclass(slots=True, kw_only=True)
class Monitor:
    """A session of one user.

    Attributes:
        source: of the observations.
        inbox: receives them.
        screen: to draw on.
        keyboard: to read keys from.
        glyphs: what the terminal can show.
        clock: returns the time; that of the recording if one is replayed.
        zone: the time zone for display.
        recorder: records the observations; None if nothing is recorded.
        state: the current state.
        ui: the choices of the user.
    """

    source: Source
    inbox: Inbox
    screen: Screen
    keyboard: Keyboard
    glyphs: Glyphs
    clock: Callable[[], datetime]
    zone: tzinfo
    recorder: Recorder | None = None
    state: State = field(default_factory=State)
    ui: Ui = field(default_factory=Ui)

    def run(self) -> None:
        """Runs until the user quits, or the terminal is gone."""
        with ExitStack() as stack:
            stack.enter_context(typing(self.keyboard.descriptor))
            stack.enter_context(self.screen.taken())
            stack.enter_context(_signals(self))
            stack.callback(self.source.stop)
            self.source.start()
            self._loop()

    def _loop(self) -> None:
        pace, changed, typed = Pace(), True, False
        while not self.ui.quit:
            now = time.monotonic()
            if changed and now >= pace.due(typed=typed):
                try:
                    with pace.drawing():
                        self.draw()
                except OSError:  # the terminal is gone
                    self.ui = replace(self.ui, quit=True)
                changed = typed = False
                continue
            if changed:
                # Observations wait until then: handling them together is enough.
                descriptors = [self.keyboard.descriptor]
                wait = pace.due(typed=typed) - now
            else:
                descriptors = [self.keyboard.descriptor, self.inbox.descriptor]
                wait = max(pace.drawn_at + LONGEST_SECONDS - now, 0.0)
            ready, _, _ = select.select(descriptors, [], [], wait)
            if self.keyboard.descriptor in ready:
                self._type()
                typed = True
            self._observe()
            changed = True

    def draw(self) -> None:
        """Draws the current state."""
        width, height = size = self.screen.size()
        look = Look(
            width=width, height=height, now=self.clock(), zone=self.zone, glyphs=self.glyphs
        )
        self.screen.draw(frame(self.state, self.ui, look), size)

    def _type(self) -> None:
        keys = self.keyboard.read()
        if keys is None:
            self.ui = replace(self.ui, quit=True)
            return
        for key in keys:
            self.ui, request = press(self.ui, key, self.state)
            if request is not None:
                self.source.request(request)

    def _observe(self) -> None:
        for seen in self.inbox.take():
            self.state = fold(self.state, seen)
            if self.recorder is not None:
                self.recorder.write(seen)


class Replay:
    """A recording as a source: the same observations, at the same intervals or faster.

    Args:
        recorded: the observations, in order.
        put: receives them.
        speed: seconds of the recording per second.
    """

    def __init__(
        self, recorded: Sequence[Observation], put: Callable[[Observation], None], speed: float
    ) -> None:
        self._recorded, self._put, self._speed = recorded, put, speed
        self._started = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, name="monitor-replay", daemon=True)

    def start(self) -> None:
        """Starts with the first observation."""
        self._started = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Stops, also before the end."""
        self._stopped.set()
        self._thread.join()

    def request(self, request: Request) -> None:
        """Does nothing: there is no server."""

    def now(self) -> datetime:
        """Returns the time in the recording, at most that of its end."""
        if not self._recorded:
            return datetime.now(UTC)
        passed = timedelta(seconds=(time.monotonic() - self._started) * self._speed)
        return min(self._recorded[0].at + passed, self._recorded[-1].at)

    def _live(self) -> None:
        for seen in self._recorded:
            due = (seen.at - self._recorded[0].at).total_seconds() / self._speed
            if self._stopped.wait(max(self._started + due - time.monotonic(), 0.0)):
                return
            self._put(seen)


def one_frame(
    observed: Sequence[Observation], look: Look, ui: Ui | None = None
) -> tuple[State, Frame]:
    """Returns the state after some observations, and its frame."""
    state = State()
    for seen in observed:
        state = fold(state, seen)
    return state, frame(state, ui or Ui(), look)


@contextmanager
def _signals(monitor: Monitor) -> Iterator[None]:
    """Handles signals: a new size is drawn at once, SIGTERM and SIGHUP quit, Ctrl-Z suspends."""

    def resized(number: int, at: FrameType | None) -> None:
        monitor.inbox.wake()

    def ended(number: int, at: FrameType | None) -> None:
        monitor.ui = replace(monitor.ui, quit=True)
        monitor.inbox.wake()

    def suspended(number: int, at: FrameType | None) -> None:
        monitor.screen.give_back()
        os.kill(os.getpid(), signal.SIGSTOP)  # goes on here after SIGCONT
        monitor.screen.take()
        monitor.inbox.wake()

    handlers = {
        signal.SIGWINCH: resized,
        signal.SIGTERM: ended,
        signal.SIGHUP: ended,
        signal.SIGTSTP: suspended,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
