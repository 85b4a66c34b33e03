"""The live loop: takes what was observed and typed, and draws; and how a recording is shown."""

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
from agent.monitor.ui import Ui, Wish, press
from agent.monitor.view import frame

# Between two frames at least; and a clock on the screen moves so often.
SHORTEST_SECONDS, LONGEST_SECONDS = 0.1, 1.0
# Of a core for drawing: a large screen on a slow machine is drawn less often.
SHARE = 0.015


class Source(Protocol):
    """Where observations come from."""

    def start(self) -> None:
        """Begins to observe."""
        ...

    def stop(self) -> None:
        """Ends."""
        ...

    def wish(self, wish: Wish) -> None:
        """Asks for something."""
        ...


class Inbox:
    """Observations on their way from other threads, and a pipe that wakes who waits for them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Observation] = queue.SimpleQueue()
        self.descriptor, self._waker = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._waker, False)

    def put(self, seen: Observation) -> None:
        """Hands one over."""
        self._queue.put(seen)
        self.wake()

    def wake(self) -> None:
        """Ends a wait, as after a change of the terminal's size."""
        # A full pipe wakes as well as one more byte does; a closed one belongs to nobody.
        with suppress(OSError):
            os.write(self._waker, b".")

    def take(self) -> Iterator[Observation]:
        """All that is there."""
        with suppress(BlockingIOError):
            os.read(self.descriptor, 4096)
        with suppress(queue.Empty):
            while True:
                yield self._queue.get_nowait()

    def close(self) -> None:
        """Gives the pipe back."""
        os.close(self.descriptor)
        os.close(self._waker)


@dataclass(slots=True)
class Pace:
    """When the next frame may be drawn, by what frames cost."""

    drawn_at: float = 0.0
    cost: float = 0.0

    def due(self, *, typed: bool) -> float:
        """The earliest moment; a key is answered even where frames are costly."""
        pause = SHORTEST_SECONDS if typed else max(SHORTEST_SECONDS, self.cost / SHARE)
        return self.drawn_at + pause

    @contextmanager
    def drawing(self) -> Iterator[None]:
        """Measures a frame."""
        started = time.thread_time()
        yield
        self.cost = time.thread_time() - started
        self.drawn_at = time.monotonic()


@dataclass(slots=True, kw_only=True)
class Monitor:
    """One person's session.

    Attributes:
        source: where observations come from.
        inbox: through which they come.
        screen: what is drawn on.
        keyboard: what is typed on.
        glyphs: what the terminal can show.
        clock: the time; of the recording if one is replayed.
        zone: in which times are shown.
        recorder: keeps what is observed; None if nobody asked for it.
        state: what is known.
        ui: what was chosen.
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
        """Until the person quits, or the terminal is gone."""
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
                # What else comes until then waits: one look at it is enough.
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
        """One frame of what is known now."""
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
            self.ui, wish = press(self.ui, key, self.state)
            if wish is not None:
                self.source.wish(wish)

    def _observe(self) -> None:
        for seen in self.inbox.take():
            self.state = fold(self.state, seen)
            if self.recorder is not None:
                self.recorder.write(seen)


class Replay:
    """A recording as a source: the same observations, in the same time or faster.

    Args:
        recorded: in order.
        put: takes them.
        speed: so many seconds of the recording a second.
    """

    def __init__(
        self, recorded: Sequence[Observation], put: Callable[[Observation], None], speed: float
    ) -> None:
        self._recorded, self._put, self._speed = recorded, put, speed
        self._started = time.monotonic()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, name="monitor-replay", daemon=True)

    def start(self) -> None:
        """Begins with the first."""
        self._started = time.monotonic()
        self._thread.start()

    def stop(self) -> None:
        """Ends in the middle."""
        self._stopped.set()
        self._thread.join()

    def wish(self, wish: Wish) -> None:
        """Nobody is there to grant it."""

    def now(self) -> datetime:
        """The time in the recording; it stands still at its end."""
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
    """What is known after some observations, and how it looks."""
    state = State()
    for seen in observed:
        state = fold(state, seen)
    return state, frame(state, ui or Ui(), look)


@contextmanager
def _signals(monitor: Monitor) -> Iterator[None]:
    """A new size is drawn at once; SIGTERM and SIGHUP end as `q` does; Ctrl-Z works."""

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
