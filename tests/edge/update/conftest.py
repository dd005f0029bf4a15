"""What the update's tests share with the agent's."""

from tests.edge.agent.conftest import authority, broker, bundles, settings, subscriber

__all__ = ["authority", "broker", "bundles", "settings", "subscriber"]
