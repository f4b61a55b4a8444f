"""``eva-hpc plan FILE``: what a sweep will do, ask for and cost, before anything starts."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eva_hpc.commands.options import File, NoSharing, Quick, RecipeName, Settings, SiteName, told_plainly

if TYPE_CHECKING:
    from eva_hpc.outlook import Outlook
    from eva_hpc.request import Opened


def plan(
    file: File,
    site: SiteName = None,
    recipe: RecipeName = None,
    set_: Settings = [],  # noqa: B006
    quick: Quick = False,
    no_sharing: NoSharing = False,
    as_json: Annotated[bool, typer.Option("--json", help="as one JSON object")] = False,
) -> None:
    """Show a sweep's runs, stages, jobs, GPU hours and disk space. Starts nothing and writes nothing.

    Exit codes: 0 shown, 2 a mistake in what was asked.
    """
    with told_plainly():
        from eva_hpc.outlook import look_ahead
        from eva_hpc.plan.describe import describe
        from eva_hpc.request import Request, open_request

        sweep = open_request(Request(file, site, recipe, tuple(set_), quick, sharing=not no_sharing))
        outlook = look_ahead(sweep)
        if as_json:
            import orjson

            typer.echo(orjson.dumps(_as_json(sweep, outlook), option=orjson.OPT_INDENT_2).decode())
            return
        lines = [*outlook.lines, *(f"warning: {text}" for text in outlook.warnings)]
        typer.echo(describe(sweep.plan, outlook.pending, sweep.site, cost=outlook.cost, lines=lines, canary=True))


def _as_json(sweep: Opened, outlook: Outlook) -> dict[str, Any]:
    from eva_hpc.plan.jobs import make_arrays, make_jobs

    plan, site = sweep.plan, sweep.site
    jobs = make_jobs(plan, outlook.pending, site) if site.executor == "slurm" else []
    arrays = make_arrays(plan, jobs, site, proven=set())
    return {
        "name": plan.name,
        "site": site.name,
        "results": str(sweep.results),
        "runs": [run.name for run in plan.runs],
        "stages": {
            "needed": plan.separate_stages,
            "after_sharing": len(plan.tasks),
            "to_do": len(outlook.pending),
        },
        "arrays": [array.model_dump(mode="json", exclude={"jobs"}) | {"jobs": len(array.jobs)} for array in arrays],
        "cost": outlook.cost.to_json(),
        "disk": {**asdict(outlook.disk), "free": outlook.free},
        "judges": [asdict(calls) for calls in outlook.calls],
        "missing": outlook.missing,
        "warnings": outlook.warnings,
    }
