"""Benchmarks: questions, how they are answered, how answers are judged, and the arithmetic from judgments to numbers.

The stages call it; it may call the lab, inference and store rooms. The arithmetic imports nothing heavy.
"""
