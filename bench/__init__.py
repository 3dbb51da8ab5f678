"""Benchmarks: what they run (images, sources), what they compare with (peers), and the tests that print the tables."""
