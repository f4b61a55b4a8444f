from __future__ import annotations

import csv
import io

import pytest

from eva_hpc.report.aggregate import aggregate
from eva_hpc.report.layout import lay_out
from eva_hpc.report.tables import markdown, terminal_table, to_csv, write_tables

AXES = {"responses_per_prompt": (2, 6)}

TEX = r"""\begin{table}[tbp]
  \centering
  \caption{Number of responses. Mean $\pm$ standard deviation over n = 2 seeds (1, 2). Lab scale: a tiny policy on tasks with checkable answers, not comparable with published results. Judge: lab checker.}
  \label{tab:k}
  \begin{tabular}{rrcc}
  \toprule
  &  & \multicolumn{2}{c}{Lab} \\
  \cmidrule(lr){3-4}
     Responses per prompt &   n &       WR       &     Gain      \\
  \midrule
                        2 &   2 & 52.5 $\pm$ 2.1 & $-$0.10 (n=1) \\
                        6 &   1 &      61.0      &      ---      \\
  \bottomrule
  \end{tabular}
  \par\smallskip
  \parbox{\linewidth}{\footnotesize\raggedright
    Responses per prompt: the responses are nested. k responses are the first k of one sample of 6, so the rows of a seed are not independent.\par
    Missing runs, 1 of 4: responses\_per\_prompt=6, seed=2.\par
    Missing values of runs that have others: lab gain of responses\_per\_prompt=2, seed=2; lab gain of responses\_per\_prompt=6, seed=1.}
\end{table}
"""  # noqa: E501

MARKDOWN = r"""Number of responses. Mean ± standard deviation over n = 2 seeds (1, 2). Lab scale: a tiny policy on tasks with checkable answers, not comparable with published results. Judge: lab checker.

|   Responses per prompt |   n |     Lab WR |    Lab Gain |
|-----------------------:|----:|-----------:|------------:|
|                      2 |   2 | 52.5 ± 2.1 | −0.10 (n=1) |
|                      6 |   1 |       61.0 |           — |

- Responses per prompt: the responses are nested. k responses are the first k of one sample of 6, so the rows of a seed are not independent.
- Missing runs, 1 of 4: responses\_per\_prompt=6, seed=2.
- Missing values of runs that have others: lab gain of responses\_per\_prompt=2, seed=2; lab gain of responses\_per\_prompt=6, seed=1.
"""  # noqa: E501

CSV = """responses_per_prompt,benchmark,metric,mean,std,n,values,missing_seeds,coverage,judge
2,lab,win_rate,52.5,2.1213203435596424,2,1=51.0;2=54.0,,1.0,lab checker
2,lab,gain,-0.1,,1,1=-0.1,2,1.0,lab checker
6,lab,win_rate,61.0,,1,1=61.0,2,1.0,lab checker
6,lab,gain,,,0,,1;2,,lab checker
"""


@pytest.fixture
def small(experiment_of, row):
    """Two grid points, two seeds, two metrics; one run and two single values are missing."""
    experiment = experiment_of(
        AXES,
        table={
            "caption": "Number of responses",
            "label": "tab:k",
            "columns": [
                {"benchmark": "lab", "metric": "win_rate", "heading": "WR", "group": "Lab"},
                {"benchmark": "lab", "metric": "gain", "heading": "Gain", "group": "Lab", "decimals": 2},
            ],
        },
    )
    two, six = {"responses_per_prompt": 2}, {"responses_per_prompt": 6}
    rows = [row(two, 1, 51.0), row(two, 2, 54.0), row(two, 1, -0.1, metric="gain"), row(six, 1, 61.0)]
    return aggregate(rows, experiment), experiment


def test_the_three_files_hold_exactly_this_text(small, tmp_path):
    paths = write_tables(*small, tmp_path / "tables")

    assert paths == {suffix: tmp_path / "tables" / f"table.{suffix}" for suffix in ("tex", "md", "csv")}
    assert paths["tex"].read_text(encoding="utf-8") == TEX
    assert paths["md"].read_text(encoding="utf-8") == MARKDOWN
    assert paths["csv"].read_text(encoding="utf-8") == CSV
    assert sorted(path.name for path in (tmp_path / "tables").iterdir()) == ["table.csv", "table.md", "table.tex"]


def test_writing_again_replaces_the_files(small, tmp_path):
    first = {suffix: path.read_text() for suffix, path in write_tables(*small, tmp_path).items()}
    (tmp_path / "table.md").write_text("old")

    assert {suffix: path.read_text() for suffix, path in write_tables(*small, tmp_path).items()} == first


def test_the_terminal_shows_the_same_cells_caption_and_notes(small):
    from rich.console import Console

    console = Console(file=io.StringIO(), width=200)
    console.print(terminal_table(*small))
    text = console.file.getvalue()

    for part in ("Number of responses.", "Responses per prompt", "52.5 ± 2.1", "−0.10 (n=1)", "—", "Missing runs, 1 of 4"):
        assert part in text


def test_the_terminal_reads_nothing_as_markup(experiment_of, row):
    from rich.console import Console

    experiment = experiment_of({"creator.informativeness": ("[bold]x[/bold]", "[/]")}, seeds=(1,), table={"caption": "[red]!"})
    rows = [row({"creator.informativeness": "[/]"}, 1, 1.0)]
    console = Console(file=io.StringIO(), width=200)

    console.print(terminal_table(aggregate(rows, experiment), experiment))

    assert all(part in console.file.getvalue() for part in ("[bold]x[/bold]", "[/]", "[red]!"))


def test_a_single_seed_is_said_to_have_no_spread(experiment_of, row):
    experiment = experiment_of({"evolved_ratio": (0.8,)}, seeds=(7,))

    layout = lay_out(aggregate([row({"evolved_ratio": 0.8}, 7, 61.24)], experiment), experiment)

    assert layout.body == (("0.8", "61.2"),)
    assert layout.notes == ()
    assert "One seed (7), so no spread is known." in layout.caption


def test_a_table_without_any_row_names_all_runs_as_missing(experiment_of, tmp_path):
    experiment = experiment_of(AXES, seeds=(1,))

    paths = write_tables(aggregate([], experiment), experiment, tmp_path)

    assert "Missing runs, 2 of 2" in paths["md"].read_text()
    assert paths["tex"].read_text().count("\\\\\n") == 4


def test_only_lab_parts_make_a_table_lab_scale(experiment_of, row, full_recipe):
    rows = [row({"rounds": 1}, 1, 61.2, benchmark="heldout", judge="reward")]

    full = experiment_of({"rounds": (1,)}, seeds=(1,), recipe=full_recipe)
    lab = experiment_of({"rounds": (1,)}, seeds=(1,), quick=True)

    assert "Lab scale" not in lay_out(aggregate(rows, full), full).caption
    assert "Judge: reward." in lay_out(aggregate(rows, full), full).caption
    assert "Lab scale" in lay_out(aggregate(rows, lab), lab).caption
    assert "Quick run" in lay_out(aggregate(rows, lab), lab).caption


def test_several_judges_are_named_with_their_benchmarks(experiment_of, row, two_benchmarks):
    rows = [row({"rounds": 1}, 1, 61.2, benchmark=name, judge=judge) for name, judge in (("a", "j1"), ("b", "j2"), ("b", "j2"))]
    experiment = experiment_of({"rounds": (1,)}, seeds=(1,), recipe=two_benchmarks)

    assert "Judges: a by j1; b by j2." in lay_out(aggregate(rows, experiment), experiment).caption


def test_notes_tell_what_a_reader_must_know(experiment_of, row):
    axes = {"rounds": tuple(range(1, 11))}
    columns = [{"benchmark": "lab", "metric": metric, "heading": metric} for metric in ("win_rate", "win_rte")]
    experiment = experiment_of(axes, seeds=(1,), table={"columns": columns})
    rows = [row({"rounds": 1}, 1, 61.2, coverage=0.931), row({"rounds": 11}, 1, 61.2, git_commit="1111")]

    notes = lay_out(aggregate(rows, experiment), experiment).notes

    assert notes == (
        "Missing runs, 9 of 10: " + "; ".join(f"rounds={r}, seed=1" for r in range(2, 10)) + "; and 1 more.",
        "No run has lab win_rte; they have lab win_rate.",
        "Not all answers were judged: lab win_rate at rounds=1 (as few as 93.1 %).",
        "Left out, because this sweep does not ask for them: rounds=11, seed=1.",
    )


def test_different_versions_among_the_runs_are_noted(experiment_of, row):
    experiment = experiment_of({"rounds": (1,)})
    rows = [row({"rounds": 1}, 1, 61.2), row({"rounds": 1}, 2, 61.2, git_commit="1111")]

    (note,) = lay_out(aggregate(rows, experiment), experiment).notes

    assert note == "The runs were made with different versions of eva_hpc: 0.1.0 (1111); 0.1.0 (9e1b)."


@pytest.mark.parametrize(("value", "text"), [(-0.04, "0.0"), (-1.25, "−1.2"), (99.96, "100.0"), (0.05, "0.1"), (0.0, "0.0")])
def test_numbers_are_rounded_without_a_negative_zero(experiment_of, row, value, text):
    columns = [{"benchmark": "lab", "metric": "win_rate", "heading": "WR"}]
    experiment = experiment_of({"rounds": (1,)}, seeds=(1,), table={"columns": columns})

    assert lay_out(aggregate([row({"rounds": 1}, 1, value)], experiment), experiment).body == (("1", text),)


def test_markdown_and_csv_survive_any_axis_value(experiment_of, row):
    nasty = 'a|b*c_d`e<f>\n"g",h\\'
    axes = {"creator.informativeness": (nasty,)}
    experiment = experiment_of(axes, seeds=(1,))
    result = aggregate([row({"creator.informativeness": nasty}, 1, 61.2)], experiment)

    (line,) = [line for line in markdown(lay_out(result, experiment)).splitlines() if "61.2" in line]
    records = list(csv.DictReader(io.StringIO(to_csv(result, experiment), newline="")))

    assert line.startswith(r'| a\|b\*c\_d\`e\<f\> "g",h\\ ')
    assert [record["creator.informativeness"] for record in records] == [nasty]


def test_switches_read_yes_and_no(experiment_of, row):
    experiment = experiment_of({"optimiser.gradient_checkpointing": (True, False)}, seeds=(1,))
    rows = [row({"optimiser.gradient_checkpointing": on}, 1, 1.0) for on in (True, False)]

    layout = lay_out(aggregate(rows, experiment), experiment)

    assert [line[0] for line in layout.body] == ["yes", "no"]
    assert layout.numeric == (False,)
