"""Times, memory and energy of bundles on a device."""
