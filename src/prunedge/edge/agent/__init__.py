"""Watches a folder or a camera and publishes what it finds over MQTT: images in, messages out,
none lost and none told twice.
"""

from prunedge.edge.agent.agent import Agent
from prunedge.edge.agent.broker import Broker, parse_broker
from prunedge.edge.agent.settings import AgentSettings, UpdateSettings

__all__ = ["Agent", "AgentSettings", "Broker", "UpdateSettings", "parse_broker"]
