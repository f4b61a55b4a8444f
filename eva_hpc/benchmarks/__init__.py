"""Benchmarks: questions, how they are answered, how answers are judged, and the arithmetic from judgments to numbers.

`registry` has the three judged benchmarks, each a folder of its own with its questions, its way of asking a judge and the
official arithmetic; `judging` asks, `official` has their files, `statistics` what they share, `calibration` the comparison with
published numbers. `rewards` is for benchmarks without a judge. The stages call it; it may call the lab, inference and store
rooms. The arithmetic imports nothing heavy.
"""
