"""Run a plan on a device."""
