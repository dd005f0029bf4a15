"""New bundles for devices in the field: announced, signed, fetched, tried, taken or refused."""
