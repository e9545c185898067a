"""Benchmarks; `common.py` says what is measured and `peers.py` against whom."""
