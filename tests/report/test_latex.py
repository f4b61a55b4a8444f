from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.report.aggregate import aggregate
from eva_hpc.report.latex import escape, render
from eva_hpc.report.layout import Layout, lay_out

PAPER = [
    {"benchmark": "arena_hard", "metric": "win_rate", "heading": "WR (%)", "group": "Arena-Hard"},
    {"benchmark": "mt_bench", "metric": "average", "heading": "avg.", "group": "MT-Bench", "decimals": 2},
    {"benchmark": "mt_bench", "metric": "turn_1", "heading": "1st turn", "group": "MT-Bench", "decimals": 2},
    {"benchmark": "mt_bench", "metric": "turn_2", "heading": "2nd turn", "group": "MT-Bench", "decimals": 2},
    {"benchmark": "alpaca_eval", "metric": "lc_win_rate", "heading": "LC-WR (%)", "group": "AlpacaEval 2.0"},
    {"benchmark": "alpaca_eval", "metric": "win_rate", "heading": "WR (%)", "group": "AlpacaEval 2.0"},
]
NASTY = "50% of a_b & #1 costs $2 \\ {x} ~ ^ <y> | end"


@pytest.fixture
def paper(experiment_of, row):
    """The six columns of the paper for two axes; one run is missing."""
    axes = {"optimiser.loss": ("dpo", "simpo"), "evolved_ratio": (0.0, 0.8)}
    experiment = experiment_of(axes, seeds=(1, 2, 3), table={"caption": "Six metrics", "columns": PAPER})
    rows = [
        row(
            {"optimiser.loss": loss, "evolved_ratio": ratio},
            seed,
            start + seed + 5 * ratio,
            column["benchmark"],
            column["metric"],
        )
        for loss in ("dpo", "simpo")
        for ratio in (0.0, 0.8)
        for seed in (1, 2, 3)
        for column, start in zip(PAPER, (50, 3.6, 4.0, 3.2, 50, 49), strict=True)
        if (loss, ratio, seed) != ("simpo", 0.8, 3)
    ]
    return aggregate(rows, experiment), experiment


def test_the_papers_six_columns_stand_in_groups_and_rows_in_groups_of_the_first_axis(paper):
    text = render(lay_out(*paper), "tab:main")

    lines = [" ".join(line.split()) for line in text.splitlines()]
    start = lines.index(r"\toprule")
    assert lines[start : start + 5] == [
        r"\toprule",
        r"& & & \multicolumn{1}{c}{Arena-Hard} & \multicolumn{3}{c}{MT-Bench} & \multicolumn{2}{c}{AlpacaEval 2.0} \\",
        r"\cmidrule(lr){4-4} \cmidrule(lr){5-7} \cmidrule(lr){8-9}",
        r"Optimiser loss & Evolved ratio & n & WR (\%) & avg. & 1st turn & 2nd turn & LC-WR (\%) & WR (\%) \\",
        r"\midrule",
    ]
    base = r"52.0 $\pm$ 1.0 & 5.60 $\pm$ 1.00 & 6.00 $\pm$ 1.00 & 5.20 $\pm$ 1.00 & 52.0 $\pm$ 1.0 & 51.0 $\pm$ 1.0 \\"
    eva = r"56.0 $\pm$ 1.0 & 9.60 $\pm$ 1.00 & 10.00 $\pm$ 1.00 & 9.20 $\pm$ 1.00 & 56.0 $\pm$ 1.0 & 55.0 $\pm$ 1.0 \\"
    two = r"55.5 $\pm$ 0.7 & 9.10 $\pm$ 0.71 & 9.50 $\pm$ 0.71 & 8.70 $\pm$ 0.71 & 55.5 $\pm$ 0.7 & 54.5 $\pm$ 0.7 \\"
    assert lines[start + 5 : start + 11] == [
        rf"dpo & 0.0 & 3 & {base}",
        rf"dpo & 0.8 & 3 & {eva}",
        r"\addlinespace",
        rf"simpo & 0.0 & 3 & {base}",
        rf"simpo & 0.8 & 2 & {two}",
        r"\bottomrule",
    ]
    assert r"optimiser.loss=simpo, evolved\_ratio=0.8, seed=3" in text


def test_columns_without_a_group_stand_under_an_empty_heading(experiment_of, row):
    columns = [{**PAPER[0], "group": ""}, PAPER[1]]
    experiment = experiment_of({"rounds": (1,)}, seeds=(1,), table={"columns": columns})

    text = render(lay_out(aggregate([row({"rounds": 1}, 1, 1.0)], experiment), experiment), "tab:t")

    assert "\n  &  & \\multicolumn{1}{c}{MT-Bench} \\\\\n  \\cmidrule(lr){3-3}\n" in text


def test_without_groups_there_is_one_line_of_headings(experiment_of, row):
    experiment = experiment_of({"rounds": (1,)}, seeds=(1,), table={"columns": [{**PAPER[0], "group": ""}]})

    text = render(lay_out(aggregate([row({"rounds": 1}, 1, 1.0)], experiment), experiment), "tab:t")

    assert "multicolumn" not in text
    assert "cmidrule" not in text


def test_characters_that_latex_treats_specially_are_escaped():
    assert escape(NASTY) == (
        r"50\% of a\_b \& \#1 costs \$2 \textbackslash{} \{x\} \textasciitilde{} \textasciicircum{} "
        r"\textless{}y\textgreater{} \textbar{} end"
    )


@given(st.text())
def test_escaped_text_has_no_special_character_left(text):
    plain = escape(text)
    for known in (r"\textbackslash{}", r"\textasciicircum{}", r"\textasciitilde{}", r"\textless{}", r"\textgreater{}"):
        plain = plain.replace(known, "")
    for known in (r"\textbar{}", r"\dag{}", r"$\pm$", "$-$", r"\{", r"\}", r"\$", r"\&", r"\#", r"\%", r"\_"):
        plain = plain.replace(known, "")

    assert not set(plain) & set("\\{}$&#%_^~<>|\n\r\t")


def test_a_label_keeps_only_what_a_label_can_hold():
    layout = Layout(leading=("K",), numeric=(True,), columns=(), body=(("1",),), caption="C.", notes=())

    assert r"\label{tab:k_6-50--}" in render(layout, "tab:k_6 50%}")


def compiles(folder: Path, tables: list[str], packages: str = "") -> str:
    """The log of pdflatex for a document that inputs the tables, with booktabs and other `packages`; fails on any error."""
    if shutil.which("pdflatex") is None:
        pytest.skip("pdflatex is not installed (Debian: texlive-latex-base and texlive-latex-recommended)")
    for i, table in enumerate(tables):
        (folder / f"table{i}.tex").write_text(table, encoding="utf-8")
    inputs = "\n".join(rf"\input{{table{i}}}" for i in range(len(tables)))
    (folder / "paper.tex").write_text(
        "\\documentclass{article}\n\\usepackage[margin=1in]{geometry}\n\\usepackage{booktabs}\n"
        f"{packages}\\begin{{document}}\n"
        f"{inputs}\n\\end{{document}}\n"
    )
    done = subprocess.run(
        ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert (folder / "paper.pdf").read_bytes().startswith(b"%PDF")
    return done.stdout


@pytest.mark.slow
def test_pdflatex_sets_the_papers_table_and_one_with_nasty_names(paper, experiment_of, row, tmp_path):
    axes = {"creator.informativeness": (NASTY, "plain\n\nvalue"), NASTY: ("\\", "%")}
    table = {
        "caption": f"{NASTY}\n\nsecond paragraph",
        "label": "tab:%_{",
        "columns": [{**PAPER[0], "heading": NASTY, "group": NASTY}],
    }
    experiment = experiment_of(axes, seeds=(1,), table=table)
    rows = [row({"creator.informativeness": NASTY, NASTY: "%"}, 1, 61.2, "arena_hard", judge=NASTY)]

    nasty = render(lay_out(aggregate(rows, experiment), experiment), "tab:%_{")
    log = compiles(tmp_path, [render(lay_out(*paper), "tab:main"), nasty])

    assert "multiply defined" not in log
    assert "Overfull" not in log.split("table1.tex")[0]


@pytest.mark.slow
def test_pdflatex_sets_the_papers_numbers_beneath_ours_and_beside_them(experiment_of, row, full_recipe, tmp_path):
    axes = {"optimiser": {"DPO": "dpo"}, "training": {"base": {"rounds": 0}, "+ eva": {"rounds": 1}}}
    table = {"caption": "Main", "columns": PAPER, "paper": {"table": "main", "names": {"base": ""}}}
    names = ("arena_hard", "mt_bench", "alpaca_eval")
    judged = full_recipe | {"judge": {"model": "j"}, "benchmarks": {name: {"kind": name} for name in names}}
    full = experiment_of(axes, recipe=judged, table=table)
    rows = [
        row(point, seed, 61.0 + seed, column["benchmark"], column["metric"])
        for point, _ in full.points
        for seed in (1, 2)
        for column in PAPER
    ]
    lab = experiment_of(axes, table=table | {"columns": []})
    at_lab = [row(point, seed, 61.0 + seed) for point, _ in lab.points for seed in (1, 2)]

    beneath, beside = lay_out(aggregate(rows, full), full), lay_out(aggregate(at_lab, lab), lab)
    log = compiles(tmp_path, [render(beneath, "tab:full"), render(beside, "tab:lab")], "\\usepackage{xcolor}\n")

    assert beneath.paper
    assert beside.beside is not None
    assert "Overfull" not in log
