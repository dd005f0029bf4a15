"""What went wrong, told once on stderr, in the status and on the errors' topic. Safe to use from
several threads.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from prunedge.edge.agent.database import Store
from prunedge.edge.agent.messages import Topics, failure, now
from prunedge.edge.logs import log, one_line
from prunedge.errors import AgentError, PrunedgeError

GARBAGE_S = 10.0  # between two published reports of messages that are not ours


class Reports:
    """Tells of trouble, and calls `wake` when there is a message of it. `last` is the newest: its
    time and its line.
    """

    def __init__(
        self,
        store: Store,
        topics: Topics,
        device: str,
        model_topic: str | None,
        wake: Callable[[], None],
    ) -> None:
        self._store, self._topics, self._device, self._model_topic = (
            store,
            topics,
            device,
            model_topic or "",
        )
        self._wake, self._garbage = wake, -GARBAGE_S
        self.last: dict[str, str] | None = None

    def warn(self, error: Exception) -> None:
        """A line on stderr, and in the status."""
        log.warning("%s", one_line(error))
        self.last = {"time": now(), "error": one_line(error)}

    def publish(self, kind: str, about: str, error: object, key: str) -> None:
        """A message on the errors' topic, as soon as the broker is there."""
        try:
            self._store.enqueue(failure(self._topics, self._device, kind, about, error, key))
            self._wake()
        except AgentError as trouble:
            self.warn(trouble)

    def refuse(self, kind: str, key: str, error: PrunedgeError, is_final: bool) -> None:
        """An announcement (`bundle`), or what is none (`message`), was refused; for good, or until
        it is tried again.
        """
        self.warn(
            AgentError(
                f"on {self._model_topic}: {error.what}", where=error.where, remedy=error.remedy
            )
        )
        if kind == "message":
            if monotonic() - self._garbage < GARBAGE_S:
                return  # or a stranger could fill the disk
            self._garbage = monotonic()
        if not is_final:
            self.publish(kind, self._model_topic, error, key)
            return
        try:
            self._store.refuse(
                key, failure(self._topics, self._device, kind, self._model_topic, error, key)
            )
        except AgentError as trouble:
            self.warn(trouble)
