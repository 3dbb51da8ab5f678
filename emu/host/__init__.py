"""The host's side of the machine's lines: bounded, never blocking, polled between slices of a run."""
