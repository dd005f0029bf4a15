"""The thread that takes messages from the outbox to the broker, while images are being
inspected.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Thread
from time import monotonic, sleep
from typing import NoReturn

from prunedge.edge.agent.broker import Broker
from prunedge.edge.agent.connection import Connection
from prunedge.edge.agent.database import Store
from prunedge.edge.agent.messages import status
from prunedge.edge.logs import log, one_line
from prunedge.errors import AgentError
from prunedge.utils.backoff import Backoff
from prunedge.utils.machine import require_memory
from prunedge.utils.wording import counted

BACKOFF_S = (1.0, 60.0)  # between two tries to connect: at first, at most
STATUS_S = 60.0
SILENCE_S = 45.0  # without an acknowledgement, until a connection counts as dead
AGAIN_S = 30.0  # until a message that the broker refused is sent again
GOODBYE_S = 3.0


class Outbox:
    """Keeps connected, sends what waits in order, and forgets a message when the broker has
    acknowledged it.

    `tell` gives the status payload; it is published, retained, on connecting, when `status_changed`
    was called and once a minute. `on_message` is called with each message on the topic `subscribe`,
    its payload and whether it is a retained one that was published before we came, in a thread of
    paho's: it must not wait.
    """

    def __init__(
        self,
        store: Store,
        broker: Broker,
        client_id: str,
        device: str,
        status_topic: str,
        tell: Callable[[], str],
        subscribe: str | None = None,
        on_message: Callable[[bytes, bool], None] = lambda payload, is_retained: None,
        backoff: tuple[float, float] = BACKOFF_S,
    ) -> None:
        self._store, self._broker, self._client_id, self._device = store, broker, client_id, device
        self._topic, self._tell, self._subscribe, self._on_message = (
            status_topic,
            tell,
            subscribe,
            on_message,
        )
        # Spread, so that a hundred devices don't come back in the same second.
        self._pauses = Backoff(*backoff, jitter=0.3)
        self._wake, self._ending, self._deadline = Event(), Event(), 0.0
        self._connection: Connection | None = None
        self._sent: dict[int, int] = {}  # number of a message on its way -> its place in the outbox
        self._status_number: int | None = None  # of a status on its way
        self._moved = (
            0.0  # when something was last acknowledged, or sent when nothing was on its way
        )
        self._done: list[int] = []  # places that the broker has, still to be forgotten
        self._held: dict[
            int, float
        ] = {}  # places that the broker refused -> when to send them again
        self._tries, self._status_due = 0, 0.0
        self.problem: AgentError | None = None
        self._thread = Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Begin, in a thread of its own."""
        require_memory(1)
        self._thread.start()

    def wake(self) -> None:
        """There is something new in the outbox."""
        self._wake.set()

    def is_alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def status_changed(self) -> None:
        """Publish the status soon."""
        self._status_due = 0.0
        self._wake.set()

    def stop(self, seconds: float) -> None:
        """Send what waits, for `seconds` at most, publish that the agent is offline, and
        disconnect.
        """
        self._deadline = monotonic() + seconds
        self._ending.set()
        self._wake.set()
        self._thread.join(seconds + 2 * GOODBYE_S + 30)

    def _run(self) -> None:
        while True:
            try:
                pause, is_well = self._turn(), True
                self.problem = None
            except AgentError as error:
                self.problem = error.with_traceback(
                    None
                )  # which would keep the failed connection and its sockets
                log.warning("%s", one_line(error))
                pause, is_well = self._backoff(), False
            if self._ending.is_set():
                left = self._deadline - monotonic()
                if left <= 0 or self._is_idle():
                    break
                pause = min(pause, left)
            if is_well:
                self._wake.wait(pause)
            elif self._ending.is_set():
                sleep(pause)
            else:  # new messages are no reason to press a broker that is away or refuses us
                self._ending.wait(pause)
            self._wake.clear()
        if self._connection is not None:
            self._connection.close(
                self._topic, status(self._device, "offline", reason="stopped"), GOODBYE_S
            )

    def _turn(self) -> float:
        """Do what can be done now; returns how many seconds may pass until there is something to do
        again.
        """
        if self._connection is None:
            self._connection = self._connect()
        connection = self._connection
        self._settle(connection)
        if connection.lost.is_set():
            self._give_up(f"the connection to the broker was lost ({connection.why()})")
        if not self._on_their_way():
            self._moved = monotonic()
        if monotonic() >= self._status_due and self._status_number is None:
            self._status_due = monotonic() + STATUS_S
            self._status_number = connection.publish(self._topic, self._tell(), retain=True)
        self._send(connection)
        # The status is sent every minute, so a connection that is dead without having been closed
        # is noticed.
        if monotonic() - self._moved > SILENCE_S:
            self._give_up("the broker acknowledges nothing any more")
        soonest = min([self._status_due, self._moved + SILENCE_S, *self._held.values()])
        return max(0.05, soonest - monotonic())

    def _on_their_way(self) -> int:
        return len(self._sent) + (self._status_number is not None)

    def _connect(self) -> Connection:
        will = status(self._device, "offline", reason="connection lost")
        connection = Connection(
            self._broker,
            self._client_id,
            (self._topic, will),
            self._subscribe,
            self._on_message,
            self._wake.set,
        )
        connection.open()
        # What was on its way and not acknowledged is still in the outbox, and is sent again with
        # the same id.
        self._sent.clear()
        self._status_number, self._status_due = None, 0.0
        waiting = counted(self._store.waiting(), "message waits", "messages wait")
        log.info("connected to %s, %s", self._broker, waiting)
        return connection

    def _give_up(self, why: str) -> NoReturn:
        if self._connection is not None:
            self._connection.abandon()
            self._connection = None
        raise AgentError(why, where=self._broker, remedy="it is made again")

    def _settle(self, connection: Connection) -> None:
        while connection.acknowledged:
            number, refused = connection.acknowledged.popleft()
            place, self._moved = self._sent.pop(number, None), monotonic()
            if refused is None:
                self._tries = 0
            if number == self._status_number:
                self._status_number = None
                if refused:
                    log.warning(
                        "the broker refuses the status (%s): check its access list", refused
                    )
            elif place is None:
                continue
            elif refused:
                self._held[place] = monotonic() + AGAIN_S
                log.warning(
                    "the broker refuses a message, which is kept (%s): check its access list",
                    refused,
                )
            else:
                self._done.append(place)
        if connection.subscription_refused:
            log.warning(
                "the broker refuses to send announcements (%s): check its access list",
                connection.subscription_refused,
            )
            connection.subscription_refused = None
        if self._done:
            self._store.delivered(self._done)
            self._done.clear()

    def _send(self, connection: Connection) -> None:
        self._held = {place: until for place, until in self._held.items() if until > monotonic()}
        busy = {*self._sent.values(), *self._held, *self._done}
        waiting = self._store.oldest(max(0, connection.window - self._on_their_way()), busy)
        for entry in waiting:
            place = entry.place
            message = entry.message
            if connection.takes(message.payload):
                self._sent[connection.publish(message.topic, message.payload)] = place
            else:
                self._held[place] = monotonic() + AGAIN_S
                log.warning(
                    (
                        "a message is longer than the broker takes, and is kept: raise its "
                        "limit (%s bytes)"
                    ),
                    connection.largest,
                )

    def _is_idle(self) -> bool:
        try:
            return not self._store.waiting()
        except AgentError:
            return False

    def _backoff(self) -> float:
        self._tries += 1
        return self._pauses.pause(self._tries)
