"""What the answers of probe jobs mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eva_hpc.cluster.doctor.finding import Finding, ok, problem, warning
from eva_hpc.cluster.doctor.probing import Probe
from eva_hpc.config.site import Site, Software

_SLOW_FILES_S = 5.0
_CLOCK_S = 30.0
_LITTLE_SPACE_GB = 10.0
_LITTLE_TMP_GB = 2.0
_OPEN_FILES = 1024
_SLOW_IMPORT_S = 60.0


def check_probe(
    probe: Probe, site: Site, needed: Callable[[Software], list[str]], needs_hub: bool, among: int
) -> list[Finding]:
    """All that one probe job found; `among` is how many there were."""
    where = f", {probe.kind.title}" if among > 1 else ""
    if probe.answer is None:
        means = "whether jobs can work there is not known"
        return [problem(f"probe job{where}", probe.failure, means, probe.advice)]
    answer = probe.answer
    findings = [
        ok("probe job", f"ran on {answer['node']} with Python {answer['python']}"),
        _visibility(probe),
        _clock(probe),
        _files(answer["files"], site.root),
        _space(answer, site.root),
        _step(answer, probe),
        _signals(answer),
        *_gpus(answer, probe),
        *(_software(name, answer["software"][name], needed(software), probe) for name, software in probe.software.items()),
        _internet(answer["internet"], site, needs_hub),
        _open_files(answer["open_files"]),
    ]
    return [Finding(**{**vars(one), "check": f"{one.check}{where}"}) for one in findings]


def _visibility(probe: Probe) -> Finding:
    check = "shared file system"
    if probe.ponged is None:
        means = "a file written here is not seen on a node in time, or the other way"
        return warning(check, "the node saw no file of ours within 40 s", means, "look at the mount options (acdirmax)")
    seconds = (probe.ponged - probe.echoed) / 2
    found = f"a file is seen on the other side after {seconds:.1f} s"
    if seconds > _SLOW_FILES_S:
        means = "status is late by that much, and jobs may not see at once what others have finished"
        return warning(check, found, means, "look at the mount options (acdirmax)", f"status is {seconds:.0f} s late")
    return ok(check, found)


def _clock(probe: Probe) -> Finding:
    if probe.ponged is None:
        return ok("clocks", "not measured")
    difference = probe.there - (probe.echoed + probe.ponged) / 2
    doubt = (probe.ponged - probe.echoed) / 2
    found = f"the node's clock differs from this one by {difference:.1f} s (give or take {doubt:.1f} s)"
    if abs(difference) - doubt > _CLOCK_S:
        return warning("clocks", found, "times in the ledger and in logs do not fit together", "tell the cluster's staff")
    return ok("clocks", found)


def _files(files: dict[str, Any], root: str) -> Finding:
    check = "file system's abilities"
    names = {"link": "hard links", "rename": "rename", "lock": "flock"}
    broken = [f"{words}: {files[name]}" for name, words in names.items() if files[name]]
    found = f"hard links, rename and locks work below {root}; {files['mb_per_s']:.0f} MB/s written from one node"
    if files["link"] or files["rename"]:
        means = "two jobs could make the same artifact, or one could be read half written"
        return problem(check, "; ".join(broken), means, "set root to another file system")
    if broken:
        means = "two launchers of one sweep are not kept apart"
        return warning(check, "; ".join(broken), means, "start a sweep once", "nothing keeps two launchers apart")
    return ok(check, found)


def _space(answer: dict[str, Any], root: str) -> Finding:
    tmp = answer["tmp"]
    found = f"{answer['free_gb']:.0f} GB free below {root}, {tmp['free_gb']:.0f} GB in the node's {tmp['folder']}"
    if answer["free_gb"] < _LITTLE_SPACE_GB:
        return warning("space", found, "a sweep may fill the disk", "make room, or set another root")
    if tmp["free_gb"] < _LITTLE_TMP_GB:
        means = "caches of compiled kernels lie in the node's own folder"
        return warning("space", found, means, "set TMPDIR in slurm.setup to a larger local disk")
    return ok("space", found)


def _step(answer: dict[str, Any], probe: Probe) -> Finding:
    step, check = answer["step"], "nested steps"
    ranks = step["ranks"]
    if len(ranks) < probe.nodes:
        said = step["said"].splitlines()
        means = "stages with several processes cannot start"
        return problem(check, f"srun inside the job failed{': ' + said[-1] if said else ''}", means, "show this to the staff")
    blind = [rank["node"] for rank in ranks if not rank["sees_files"]]
    if blind:
        means, do = "stages there find no input", "set root to a shared folder"
        return problem(check, f"{', '.join(blind)} does not see root", means, do)
    apart = [f"{rank['node']}: {rank['meets']}" for rank in ranks if rank["meets"]]
    if apart:
        means = "training on several processes cannot begin" if probe.nodes > 1 else "training may not begin"
        return problem(
            check, f"ranks do not find each other: {'; '.join(apart)}", means, "ask for the nodes' network and names"
        )
    nodes = ", ".join(rank["node"] for rank in ranks)
    return ok(check, f"srun inside the job works on {nodes}; ranks meet at {step['address']}")


def _signals(answer: dict[str, Any]) -> Finding:
    step, check = answer["step"], "signals"
    deaf = [rank["node"] for rank in step["ranks"] if not rank["signalled"]]
    if step.get("scancel"):
        means = "jobs cannot requeue themselves when their time is over"
        return warning(
            check, f"Slurm's commands do not work on the node: {step['scancel']}", means, "", "a time limit ends jobs"
        )
    if deaf or not answer["driver_signalled"] or not step["ranks"]:
        who = ", ".join(deaf) or "the driver"
        means = "stages are not told to save before the time limit: what they did since the last checkpoint is lost"
        return warning(check, f"USR2 did not reach {who}", means, "", "time limits lose work since the last checkpoint")
    return ok(check, "USR2 reaches the driver and all ranks of a nested step")


def _gpus(answer: dict[str, Any], probe: Probe) -> list[Finding]:
    if not probe.gpus:
        return []
    seen = [str(rank["gpus"]) for rank in answer["step"]["ranks"]]
    if any(text in ("None", "") for text in seen):
        means = "processes would take GPUs of other jobs, or none"
        return [problem("GPUs of a step", "CUDA_VISIBLE_DEVICES is not set", means, "look at gpu_type and gres of the cluster")]
    return [ok("GPUs of a step", f"1 asked for, CUDA_VISIBLE_DEVICES is {', '.join(seen)}")]


def _software(name: str, answer: dict[str, Any], names: Sequence[str], probe: Probe) -> Finding:
    check = f"software, {name}"
    means, do = "its stages cannot run", "install it there, or name another python or setup under software:"
    if "error" in answer:
        return problem(check, f"Python does not start: {answer['error']}", means, "correct software: in the site file")
    if answer["broken"]:
        broken = "; ".join(f"{package} ({why})" for package, why in answer["broken"].items())
        return problem(check, f"cannot import {broken}", means, do)
    versions = ", ".join(f"{package} {answer['found'][package]}" for package in names if package in answer["found"])
    found = f"Python {answer['python']}, {versions}"
    if probe.gpus and answer["gpus"] == 0:
        return problem(
            check, f"{found}, but torch sees no GPU", "its stages cannot use GPUs", "install torch for this CUDA driver"
        )
    if answer["seconds"] > _SLOW_IMPORT_S:
        means = f"importing took {answer['seconds']:.0f} s: every stage starts that late"
        return warning(check, found, means, "put the environment on a faster file system, or into a container image")
    return ok(check, found, f"imported in {answer['seconds']:.0f} s")


def _internet(why_not: str | None, site: Site, needs_hub: bool) -> Finding:
    check = "internet on the nodes"
    if why_not is None:
        means = "site.offline could be false" if site.offline else ""
        return ok(check, "they reach the hub", means)
    if site.offline:
        return ok(check, "none, as site.offline says", "what the sweep needs must be here before: eva-hpc prefetch")
    found = f"they do not reach the hub: {why_not}"
    if not needs_hub:
        return ok(check, found, "nothing that is needed comes from there")
    means = "stages that load a model or data set from the hub wait for it, then fail"
    return problem(check, found, means, "set offline: true in the site file, and run eva-hpc prefetch FILE here first")


def _open_files(limit: int) -> Finding:
    if 0 <= limit < _OPEN_FILES:
        means = "servers and training on many ranks open more"
        return warning("open files", f"at most {limit} (ulimit -n)", means, "add `ulimit -n 65536` to slurm.setup")
    return ok("open files", f"at most {limit} (ulimit -n)" if limit >= 0 else "no limit")
