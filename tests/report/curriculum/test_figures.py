"""What is drawn: panels with data, one scale for all points, and the same bytes for the same data."""

from __future__ import annotations

import pytest

from eva_hpc.report.curriculum.figures import Values, distributions_figure, limits_of, panels_of, rounds_figure, save


def row(number, role, seed=1, **measures):
    return {"round": number, "set": role, "seed": seed, **measures}


LAB = [row(0, "base", steps=1.0, sensible=1.0), row(1, "evolved", steps=2.0, sensible=0.5)]
TEXT = [row(1, "base", words=10.0, reward_gap=0.5), row(1, "evolved", words=20.0, reward_gap=None)]


def test_the_lab_has_its_exact_measures_and_texts_have_proxies():
    assert [panel.column for panel in panels_of(LAB)] == ["steps", "sensible"]
    assert [panel.column for panel in panels_of(TEXT)] == ["words", "reward_gap"]


def test_all_points_share_one_scale_and_a_share_goes_from_zero_to_one():
    limits = limits_of(LAB, panels_of(LAB))
    assert limits["steps"] == pytest.approx((0.9, 2.1))
    assert limits["sensible"] == (0.0, 1.05)
    assert limits_of(TEXT, panels_of(TEXT))["reward_gap"] == pytest.approx((0.45, 0.55)), "a single value has room as well"


def test_means_over_seeds_are_drawn_where_there_are_values():
    rows = [row(0, "base", words=4.0), row(0, "base", 2, words=6.0), row(1, "evolved", words=9.0)]
    panels = panels_of(rows)
    figure = rounds_figure(rows, "t", limits_of(rows, panels), panels)
    axes, *rest = figure.axes
    means = [
        line.get_ydata().tolist() for line in axes.lines if line.get_linestyle() in ("-", "--") and line.get_marker() != "None"
    ]
    assert [5.0] in means
    assert [9.0] in means
    assert [label.get_text() for label in axes.get_xticklabels()] == ["warm-up", "1"]
    assert not any(one.axison for one in rest)


def test_the_files_hold_no_time_and_fonts_are_embedded(tmp_path):
    values = Values()
    values.add([row(0, "base", words=w, sensible=None, reward_gap=g) for w, g in ((3, 0.1), (5, None), (300, 0.9))])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save(distributions_figure(values, "t"), tmp_path / name, "d")
    for suffix in ("pdf", "png"):
        first, second = ((tmp_path / name / f"d.{suffix}").read_bytes() for name in ("a", "b"))
        assert first == second
    pdf = (tmp_path / "a" / "d.pdf").read_bytes()
    assert b"CreationDate" not in pdf
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


def test_a_round_without_rewards_still_has_its_lengths():
    values = Values()
    values.add([row(0, "base", words=3, sensible=None, reward_gap=None)])
    lengths, gaps = distributions_figure(values, "t").axes
    assert lengths.patches
    assert not gaps.patches
