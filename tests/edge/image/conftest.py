"""What the tests of images share with the inspection's."""

from tests.edge.inspect.conftest import bundle, session

__all__ = ["bundle", "session"]
