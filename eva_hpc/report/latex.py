"""A laid-out table as LaTeX: a `table` environment to `\\input`, which needs the package booktabs and nothing else.

With the paper's numbers, which are grey, it needs xcolor too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from eva_hpc.report.layout import Layout

_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "^": r"\textasciicircum{}",
        "~": r"\textasciitilde{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "−": "$-$",
        "—": "---",
        "†": r"\dag{}",
    }
)
WIDE = 4  # more metric columns than this are set in smaller type


def escape(text: str) -> str:
    """The text with every character that LaTeX treats specially made harmless; white space becomes single spaces."""
    return " ".join(text.split()).translate(_ESCAPES)


def render(layout: Layout, label: str) -> str:
    """The table environment. Characters that a label cannot hold become hyphens."""
    lines = [
        r"\begin{table}[tbp]",
        r"  \centering",
        rf"  \caption{{{escape(layout.caption)}}}",
        rf"  \label{{{re.sub('[^A-Za-z0-9:._-]', '-', label)}}}",
    ]
    if len(layout.columns) > WIDE:
        lines += [r"  \footnotesize", r"  \setlength{\tabcolsep}{3pt}"]
    lines += [f"  {line}" for line in _tabular(layout)]
    lines += _paragraph(layout.notes, "smallskip")
    if layout.beside is not None:
        lines += _paragraph((layout.beside.caption,), "medskip")
        lines += [r"  \par\smallskip", r"  \footnotesize", r"  \setlength{\tabcolsep}{3pt}"]
        lines += [f"  {line}" for line in _tabular(layout.beside, grey=True)]
        lines += _paragraph(layout.beside.notes, "smallskip")
    return "\n".join([*lines, r"\end{table}", ""])


def _paragraph(sentences: Sequence[str], gap: str) -> list[str]:
    """Small text below a table, a line for each sentence."""
    if not sentences:
        return []
    text = "\\par\n    ".join(escape(sentence) for sentence in sentences)
    return [rf"  \par\{gap}", r"  \parbox{\linewidth}{\footnotesize\raggedright", f"    {text}}}"]


def _tabular(layout: Layout, grey: bool = False) -> list[str]:
    """The tabular with booktabs rules, group headings, and a gap between the rows of different values of the first axis."""
    from tabulate import tabulate

    headings = [*layout.leading, *(heading for _, heading in layout.columns)]
    align = ["right" if numeric else "left" for numeric in layout.numeric] + ["center"] * len(layout.columns)
    rows: list[list[str]] = []
    firsts: list[str] = []
    for number, row in enumerate(layout.body):
        rows.append([_grey(cell) if grey else escape(cell) for cell in row])
        if number in layout.paper:
            rows.append([_grey(cell) for cell in layout.paper[number]])
        firsts += [row[0]] * (len(rows) - len(firsts))
    text = tabulate(
        rows,
        headers=[escape(heading) for heading in headings],
        tablefmt="latex_raw",
        colalign=align,
        disable_numparse=True,
    )
    begin, _, header, _, *body, _, end = text.splitlines()
    gaps = len(set(firsts)) < len(layout.body)
    lines = [begin, r"\toprule", *_groups(layout), header, r"\midrule"]
    for i, row in enumerate(body):
        if i and gaps and firsts[i] != firsts[i - 1]:
            lines.append(r"\addlinespace")
        lines.append(row)
    return [*lines, r"\bottomrule", end]


def _grey(cell: str) -> str:
    return rf"\textcolor{{gray}}{{{escape(cell)}}}" if cell else ""


def _groups(layout: Layout) -> list[str]:
    """The line of group headings and the rules below them; nothing if no column has a group."""
    if not any(group for group, _ in layout.columns):
        return []
    cells, rules = ["" for _ in layout.leading], []
    column = len(layout.leading)
    for group, members in groupby(layout.columns, key=lambda pair: pair[0]):
        width = len(list(members))
        if group:
            cells.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(group)}}}")
            rules.append(rf"\cmidrule(lr){{{column + 1}-{column + width}}}")
        else:
            cells += [""] * width
        column += width
    return [" & ".join(cells).lstrip() + r" \\", " ".join(rules)]
