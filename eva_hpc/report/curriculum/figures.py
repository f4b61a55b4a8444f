"""The figures of a curriculum, sized for the text width of a paper, each as PDF and PNG.

    rounds           small multiples: a measure in each panel, rounds along x, base against evolved prompts
    distributions    a row for each round: lengths and reward gaps of its base and its evolved prompts

Base and evolved differ in colour (Okabe and Ito's, safe for the colour-blind), marker, line and fill, so that a grey print
tells them apart.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

from eva_hpc.report.curriculum.collect import ROLES, Role
from eva_hpc.store.artifacts import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = Mapping[str, Any]

WIDTH = 6.75
"""Inches: the text width of two columns."""
_COLUMNS = 3
_TITLE = 40
"""Characters of a title that fit beside the marks."""
_PANEL_HEIGHT = 1.45
_STYLE: dict[Any, Any] = {
    "font.size": 7.5,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7.5,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "pdf.fonttype": 42,  # TrueType: text in the PDF can be searched, and publishers accept it
    "savefig.dpi": 200,
    "text.parse_math": False,  # a dollar sign in the name of a grid point is one
}
_GREY = "0.45"


class _Look(NamedTuple):
    colour: str
    marker: str
    line: str
    face: str
    shift: float


_LOOKS: dict[Role, _Look] = {
    "base": _Look("#0072B2", "o", "-", "#0072B2", -0.07),
    "evolved": _Look("#D55E00", "s", "--", "white", 0.07),
}


class Panel(NamedTuple):
    """A measure of a summary and its title; the axis of a `share` goes from 0 to 1."""

    column: str
    title: str
    share: bool = False


CAPTIONS = {
    "rounds": "Measures of base and evolved prompts by round: means over seeds with one standard deviation, small marks are "
    "single seeds. The base of a round after the first is the mixture that the round before trained on. Topic shift is the "
    "Jensen-Shannon divergence between the topics of evolved and base prompts.",
    "distributions": "Shares of prompts of all seeds by length and by reward gap; triangles are means, and the last bin of "
    "lengths has all longer prompts too.",
}

_OF_TEXT = (
    Panel("words", "Words of a prompt"),
    Panel("clauses", "Clauses of a prompt"),
    Panel("constraints", "Constraints in a prompt"),
    Panel("judged_complexity", "Complexity, by the judge"),
    Panel("judged_quality", "Quality, by the judge"),
)
_OF_LAB = (
    Panel("steps", "Steps of a task"),
    Panel("content_length", "Length of its content"),
    Panel("sensible", "Sensible tasks, share", True),
    Panel("judged_complexity", "Complexity, by the judge"),
    Panel("judged_quality", "Quality, by the judge"),
)
_OF_ALL = (
    Panel("response_tokens", "Tokens of a response"),
    Panel("diversity", "Diversity of prompts"),
    Panel("topic_divergence", "Topic shift, bits"),
    Panel("distinct_2", "Distinct bigrams, share"),
    Panel("reward_mean", "Mean reward"),
    Panel("reward_gap", "Reward gap, best − worst"),
)


def panels_of(summaries: Sequence[Row]) -> list[Panel]:
    """The panels for which there are data: the lab's exact measures where there are any, else those of texts."""
    lab = any(row.get("sensible") is not None for row in summaries)
    return [
        panel
        for panel in (*(_OF_LAB if lab else _OF_TEXT), *_OF_ALL)
        if any(row.get(panel.column) is not None for row in summaries)
    ]


@contextmanager
def _styled() -> Iterator[None]:
    """Matplotlib's defaults and ours, whatever the user's own settings are."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write NAME.pdf and NAME.png, without the time in them: the same data give the same files."""
    paths = []
    with _styled():
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # one layout serves both
    for suffix, metadata in (("pdf", {"CreationDate": None}), ("png", {"Software": None})):
        content = io.BytesIO()
        with _styled():
            figure.savefig(content, format=suffix, metadata=metadata)
        paths.append(folder / f"{name}.{suffix}")
        write_atomically(paths[-1], content.getvalue())
    return paths


# ---------------------------------------------------------------------------- measures over rounds


def rounds_figure(
    summaries: Sequence[Row], title: str, limits: Mapping[str, tuple[float, float]], panels: Sequence[Panel]
) -> Figure:
    """Measures over rounds at one grid point: means over seeds with bars of one standard deviation, and every seed as a dot.

    Args:
        summaries: rows of all seeds of the point.
        title: what the figure is about, e.g. the grid point.
        limits: of the y axis by column, so that figures of several points compare.
        panels: what to draw.
    """
    from matplotlib.figure import Figure

    with _styled():
        lines = math.ceil(len(panels) / _COLUMNS)
        figure = Figure(figsize=(WIDTH, lines * _PANEL_HEIGHT + 0.4), layout="constrained")
        grid = figure.subplots(lines, _COLUMNS, squeeze=False)
        numbers = sorted({row["round"] for row in summaries})
        for axes, panel in zip(grid.flat, panels, strict=False):
            _measure_over_rounds(axes, panel, summaries)
            axes.set_title(panel.title)
            axes.set_ylim(*limits[panel.column])
            axes.set_xlim(numbers[0] - 0.35, numbers[-1] + 0.35)
            axes.set_xticks(numbers, ["warm-up" if number == 0 else str(number) for number in numbers])
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        figure.supxlabel("round", fontsize=7.5)
        _legend(figure, title, chance=any(panel.column == "topic_divergence" for panel in panels))
    return figure


def _measure_over_rounds(axes: Axes, panel: Panel, summaries: Sequence[Row]) -> None:
    if panel.column == "topic_divergence":
        chance = _over_seeds(summaries, "evolved", "topic_divergence_by_chance")
        axes.plot(
            list(chance), [fmean(values) for values in chance.values()], color=_GREY, ls=":", lw=1, marker="_", ms=9, mew=1
        )
    for role, look in _LOOKS.items():
        found = _over_seeds(summaries, role, panel.column)
        if not found:
            continue
        places = [number + look.shift for number in found]
        for place, values in zip(places, found.values(), strict=True):
            axes.plot([place] * len(values), values, look.marker, ms=2, mew=0, color=look.colour, alpha=0.45, zorder=1.5)
        axes.errorbar(
            places,
            [fmean(values) for values in found.values()],
            yerr=[stdev(values) if len(values) > 1 else 0.0 for values in found.values()],
            color=look.colour,
            ls=look.line,
            lw=1.1,
            elinewidth=0.8,
            marker=look.marker,
            ms=4.2,
            mfc=look.face,
            mew=1,
            zorder=2.5,
        )


def _over_seeds(summaries: Sequence[Row], role: Role, column: str) -> dict[int, list[float]]:
    """Round -> values of the seeds."""
    found: dict[int, list[float]] = {}
    for row in summaries:
        if row["set"] == role and row.get(column) is not None:
            found.setdefault(row["round"], []).append(row[column])
    return dict(sorted(found.items()))


def limits_of(summaries: Sequence[Row], panels: Sequence[Panel]) -> dict[str, tuple[float, float]]:
    """The range of the y axis for each panel: all seeds of all points, their bars, and a margin."""
    limits = {}
    for panel in panels:
        values = [end for ends in _extents(summaries, panel.column) for end in ends]
        if panel.column == "topic_divergence":
            values += [0.0, *(row["topic_divergence_by_chance"] for row in summaries if row["topic_divergence_by_chance"])]
        low, high = min(values), max(values)
        margin = 0.1 * (high - low) or 0.05 * max(abs(high), 1.0)
        limits[panel.column] = (0.0, 1.05) if panel.share else (low - margin, high + margin)
    return limits


def _extents(summaries: Sequence[Row], column: str) -> Iterator[tuple[float, ...]]:
    """All values, and the ends of the bars, of each round and set of each point."""
    groups: dict[tuple[str, int, Role], list[float]] = {}
    for row in summaries:
        if row.get(column) is not None:
            groups.setdefault((str(row.get("point")), row["round"], row["set"]), []).append(row[column])
    for values in groups.values():
        bar = stdev(values) if len(values) > 1 else 0.0
        yield (*values, fmean(values) - bar, fmean(values) + bar)


# ---------------------------------------------------------------------------- distributions


@dataclass
class Values:
    """Values of single prompts at one grid point, all seeds together: (round, set) -> values."""

    lab: bool = False
    lengths: dict[tuple[int, Role], list[float]] = field(default_factory=dict)
    gaps: dict[tuple[int, Role], list[float]] = field(default_factory=dict)

    def add(self, rows: Sequence[Row]) -> None:
        """Take what is drawn from the rows of prompts of one set."""
        if not rows:
            return
        self.lab = self.lab or rows[0]["sensible"] is not None
        key = (rows[0]["round"], rows[0]["set"])
        self.lengths.setdefault(key, []).extend(row["characters" if self.lab else "words"] for row in rows)
        self.gaps.setdefault(key, []).extend(row["reward_gap"] for row in rows if row["reward_gap"] is not None)


def distributions_figure(values: Values, title: str) -> Figure:
    """Histograms as shares of prompts: lengths (the longest 1 % in the last bin) and reward gaps, a row for each round."""
    from matplotlib.figure import Figure

    with _styled():
        numbers = sorted({number for number, _ in values.lengths})
        figure = Figure(figsize=(WIDTH, len(numbers) * 1.25 + 0.5), layout="constrained")
        grid = figure.subplots(len(numbers), 2, squeeze=False, sharex="col", sharey="col")
        headings = ("Characters of a prompt" if values.lab else "Words of a prompt", "Reward gap, best − worst")
        for column, (heading, of) in enumerate(zip(headings, (values.lengths, values.gaps), strict=True)):
            edges = _edges(of)
            highest = 0.0
            for line, number in enumerate(numbers):
                for role in ROLES:
                    if of.get((number, role)):
                        highest = max(highest, _histogram(grid[line][column], of[number, role], edges, role))
                if column == 0:
                    grid[line][column].set_ylabel("warm-up" if number == 0 else f"round {number}")
            grid[-1][column].set_ylim(0, 1.05 * highest or 1.0)
            grid[-1][column].set_xlabel(heading)
        figure.supylabel("share of prompts", fontsize=7.5)
        _legend(figure, title, patches=True)
    return figure


def _edges(values: Mapping[tuple[int, Role], Sequence[float]]) -> list[float]:
    """Bin edges that all rows share; whole numbers get bins around whole numbers."""
    import numpy as np

    pooled = np.concatenate([np.asarray(one, dtype=float) for one in values.values()]) if values else np.zeros(0)
    if not len(pooled):
        return [0.0, 1.0]
    low, high = float(pooled.min()), float(np.quantile(pooled, 0.99))
    if np.all(pooled == np.round(pooled)):
        width = max(1, math.ceil((high - low + 1) / 30))
        return [low - 0.5 + width * index for index in range(math.ceil((high - low + 1) / width) + 1)]
    return [float(edge) for edge in np.linspace(low, high if high > low else low + 1.0, 26)]


def _histogram(axes: Axes, values: Sequence[float], edges: Sequence[float], role: Role) -> float:
    """Draw it; returns the share of the highest bin."""
    import numpy as np

    look = _LOOKS[role]
    counts, _ = np.histogram(np.clip(values, edges[0], np.nextafter(edges[-1], edges[0])), bins=edges)
    shares = counts / len(values)
    filled = role == "base"
    axes.stairs(
        shares, edges, fill=filled, color=look.colour, alpha=0.35 if filled else 1.0, lw=0 if filled else 1.2, ls=look.line
    )
    axes.plot(fmean(values), 0, marker="^", ms=4.5, mfc=look.face, mec=look.colour, mew=1, clip_on=False, zorder=4)
    return float(shares.max())


# ---------------------------------------------------------------------------- legend


def _legend(figure: Figure, title: str, *, chance: bool = False, patches: bool = False) -> None:
    """Above the panels: what the marks mean on the left, what the figure is about on the right."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    marks: list[Any] = []
    for role, look in _LOOKS.items():
        if not patches:
            style: dict[str, Any] = {"color": look.colour, "ls": look.line, "marker": look.marker, "mfc": look.face}
            marks.append(Line2D([], [], lw=1.1, ms=4.2, label=f"{role} prompts", **style))
        elif role == "base":
            marks.append(Patch(facecolor=look.colour, alpha=0.35, lw=0, label="base prompts"))
        else:
            marks.append(Line2D([], [], color=look.colour, ls=look.line, lw=1.2, label="evolved prompts"))
    if chance:
        marks.append(Line2D([], [], color=_GREY, ls=":", lw=1, marker="_", ms=9, label="shift expected by chance"))
    if patches:
        marks.append(Line2D([], [], ls="", marker="^", ms=4.5, mfc="none", mec=_GREY, label="mean"))
    figure.legend(handles=marks, loc="outside upper left", ncols=len(marks), frameon=False, borderaxespad=0, handlelength=2.6)
    title = textwrap.fill(title, _TITLE)
    figure.legend(handles=[], title=title, title_fontsize=7.5, loc="outside upper right", frameon=False, borderaxespad=0)
