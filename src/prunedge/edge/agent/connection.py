"""One connection to the broker. Needs paho-mqtt."""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from threading import Event
from typing import Any

from prunedge.edge.agent.broker import Broker
from prunedge.edge.logs import one_line
from prunedge.errors import AgentError, ExtraMissing
from prunedge.utils.machine import pass_on

KEEPALIVE_S = 30


ANSWER_S = 10.0  # to be connected, and to be answered


SESSION_S = 7 * 24 * 3600  # how long a broker keeps announcements for an agent that is away


LARGEST_PACKET = 1 << 20  # bytes; what a broker may send us


WINDOW = 20  # messages on their way at a time, at most; paho's own limit


class Connection:
    """One connection to the broker, from CONNECT to its loss. A new one is made for each try:
    nothing of an old one is left.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        will: tuple[str, str],
        subscribe: str | None,
        on_message: Callable[[bytes, bool], None],
        wake: Callable[[], None],
    ) -> None:
        mqtt, connect = _paho()
        self.acknowledged: deque[tuple[int, str | None]] = (
            deque()
        )  # (number of the message, why it was refused)
        self.lost = Event()
        self.window, self.largest = WINDOW, None  # messages on their way, bytes of a packet
        self._broker, self._subscribe, self._wake = broker, subscribe, wake
        self._answered, self._is_refused, self._why = Event(), False, ""
        self._client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=mqtt.MQTTv5,
            reconnect_on_failure=False,
        )
        self._client.connect_timeout = ANSWER_S
        self._client.username_pw_set(broker.user, broker.password)
        context = broker.context()
        if context is not None:
            self._client.tls_set_context(context)
        self._client.will_set(*will, qos=1, retain=True)
        self._client.on_connect, self._client.on_disconnect = self._on_connect, self._on_disconnect
        self._client.on_publish = self._on_publish
        self._client.on_message = lambda client, data, message: on_message(
            bytes(message.payload), message.retain
        )
        self._client.on_subscribe = self._on_subscribe
        self._properties = connect
        self.subscription_refused: str | None = None

    def open(self) -> None:
        """Connect and wait for the broker's answer; AgentError says why it failed."""
        try:
            self._connect()
            self._client.loop_start()
            self._await_answer()
        except AgentError:
            self.abandon()
            raise

    def _connect(self) -> None:
        where = self._broker
        try:
            self._client.connect(
                where.host, where.port, KEEPALIVE_S, clean_start=False, properties=self._properties
            )
        except ssl.SSLCertVerificationError as error:
            what, remedy = (
                f"the broker's certificate is not trusted ({error.verify_message})",
                "name its authority by --ca",
            )
        except ssl.SSLError as error:
            what, remedy = (
                f"TLS with the broker failed ({error.reason or error})",
                "is this its TLS port?",
            )
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or str(error) or type(error).__name__
            what, remedy = f"the broker can't be reached ({one_line(why)})", "is it running?"
        else:
            return
        self.lost.set()
        raise AgentError(what, where=where, remedy=remedy)

    def _await_answer(self) -> None:
        where = self._broker
        if not self._answered.wait(ANSWER_S):
            raise AgentError(
                "the broker does not answer",
                where=where,
                remedy="does it speak MQTT 5 on this port?",
            )
        if self._is_refused:
            raise AgentError(
                f"the broker refuses the agent ({self._why})",
                where=where,
                remedy="check user, password and its MQTT version",
            )
        if self.lost.is_set():
            raise AgentError(
                f"the broker closed the connection ({self._why})",
                where=where,
                remedy="is this its port, or its TLS port?",
            )

    def publish(self, topic: str, payload: str, retain: bool = False) -> int:
        """Send a message (QoS 1); returns the number that its acknowledgement will bear."""
        return self._client.publish(topic, payload, qos=1, retain=retain).mid

    def takes(self, payload: str) -> bool:
        """Whether the broker takes a message of this length; topic and properties need less than 1
        KiB.
        """
        return self.largest is None or len(payload.encode()) + 1024 <= self.largest

    def close(self, topic: str, payload: str, seconds: float) -> None:
        """A last retained message, then an orderly end, so that the broker doesn't send the last
        will.
        """
        info = self._client.publish(topic, payload, qos=1, retain=True)
        with suppress(
            RuntimeError, ValueError
        ):  # the connection was lost meanwhile; the last will speaks
            info.wait_for_publish(seconds)
        self.abandon(seconds)

    def abandon(self, seconds: float = 1.0) -> None:
        """Disconnect, waiting no longer than told; paho's thread is a daemon and ends by itself."""
        self._client.disconnect()
        self.lost.wait(seconds)
        # The client and this refer to each other, and its sockets stay open until it is gone: a
        # night of failed tries would use up all that a process may have.
        self._client.on_connect = self._client.on_disconnect = self._client.on_publish = None
        self._client.on_message = self._client.on_subscribe = None

    def why(self) -> str:
        """Why the connection was lost."""
        return self._why or "no reason given"

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._is_refused, self._why = True, str(reason)
        else:
            # Brokers close the connection when more is on its way than they said they take.
            self.window = min(WINDOW, getattr(properties, "ReceiveMaximum", WINDOW))
            self.largest = getattr(properties, "MaximumPacketSize", None)
            if self._subscribe is not None:
                client.subscribe(self._subscribe, qos=1)
        self._answered.set()

    def _on_subscribe(
        self, client: Any, data: Any, mid: int, reasons: list[Any], properties: Any
    ) -> None:
        refused = [str(reason) for reason in reasons if reason.is_failure]
        self.subscription_refused = refused[0] if refused else None
        self._wake()

    def _on_disconnect(
        self, client: Any, data: Any, flags: Any, reason: Any, properties: Any
    ) -> None:
        self._why = self._why or str(reason)
        self.lost.set()
        self._answered.set()
        self._wake()

    def _on_publish(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        self.acknowledged.append((mid, str(reason) if reason.is_failure else None))
        self._wake()


def require_paho() -> None:
    """ExtraMissing when paho-mqtt is not installed."""
    _paho()


def _paho() -> tuple[Any, Any]:
    """The MQTT client library, and what we tell a broker when connecting."""
    try:
        from paho.mqtt import client
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties
    except ImportError as error:
        pass_on(error)
        raise ExtraMissing(
            "'agent' needs paho-mqtt, which is not installed",
            remedy="pip install 'prunedge[agent]'",
        ) from None
    properties = Properties(PacketTypes.CONNECT)
    properties.SessionExpiryInterval = SESSION_S
    properties.MaximumPacketSize = LARGEST_PACKET
    return client, properties
