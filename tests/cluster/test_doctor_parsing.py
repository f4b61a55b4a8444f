"""What doctor concludes from the texts of a real Slurm (22.05.8), and from those texts with one value changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva_hpc.cluster import probe, queue
from eva_hpc.cluster.doctor import Level
from eva_hpc.cluster.doctor.answers import check_probe
from eva_hpc.cluster.doctor.controller import check_controller, check_preemption, check_signal, cred_expire_s
from eva_hpc.cluster.doctor.facts import ASSOCIATION, QOS, Facts
from eva_hpc.cluster.doctor.finding import Finding
from eva_hpc.cluster.doctor.kinds import Kind, kinds_of_site
from eva_hpc.cluster.doctor.limits import check_account, tres
from eva_hpc.cluster.doctor.partitions import check_kind, check_partition
from eva_hpc.cluster.doctor.probing import Probe
from eva_hpc.cluster.doctor.values import features, gpu_types, gpus, in_service, minutes, satisfies, seconds
from eva_hpc.config.site import Container, JobOptions, Resources, Site, Slurm, Software

PARTITIONS = """\
PartitionName=low AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=YES QoS=N/A DefaultTime=NONE \
DisableRootJobs=NO ExclusiveUser=NO GraceTime=20 Hidden=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 LLN=NO \
MaxCPUsPerNode=UNLIMITED Nodes=node[1-2] PriorityJobFactor=1 PriorityTier=1 RootOnly=NO ReqResv=NO OverSubscribe=NO \
OverTimeLimit=NONE PreemptMode=REQUEUE State=UP TotalCPUs=32 TotalNodes=2 SelectTypeParameters=NONE JobDefaults=(null) \
DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=32,mem=31.25G,node=2,billing=32
PartitionName=high AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default=NO QoS=N/A DefaultTime=NONE \
DisableRootJobs=NO ExclusiveUser=NO GraceTime=0 Hidden=NO MaxNodes=UNLIMITED MaxTime=UNLIMITED MinNodes=0 LLN=NO \
MaxCPUsPerNode=UNLIMITED Nodes=node[1-2] PriorityJobFactor=1 PriorityTier=10 RootOnly=NO ReqResv=NO OverSubscribe=NO \
OverTimeLimit=NONE PreemptMode=OFF State=UP TotalCPUs=32 TotalNodes=2 SelectTypeParameters=NONE JobDefaults=(null) \
DefMemPerNode=UNLIMITED MaxMemPerNode=UNLIMITED TRES=cpu=32,mem=31.25G,node=2,billing=32
"""

NODES = "".join(
    f"NodeName=node{number} Arch=x86_64 CoresPerSocket=1  CPUAlloc=0 CPUEfctv=16 CPUTot=16 CPULoad=0.35 "
    "AvailableFeatures=(null) ActiveFeatures=(null) Gres=gpu:a100:8 NodeAddr=127.0.0.1 NodeHostName=localhost "
    f"Port=2125{number} Version=22.05.8 OS=Linux 6.18.44 #1 SMP PREEMPT_DYNAMIC @0  RealMemory=16000 AllocMem=0 FreeMem=22861 "
    "Sockets=16 Boards=1 State=IDLE ThreadsPerCore=1 TmpDisk=0 Weight=1 Owner=N/A MCS_label=N/A Partitions=low,high  "
    "BootTime=2026-11-23T12:32:20 CfgTRES=cpu=16,mem=16000M,billing=16 AllocTRES= CapWatts=n/a\n"
    for number in (1, 2)
)

RESERVATIONS = (
    "ReservationName=mine StartTime=2026-11-23T15:24:29 EndTime=2126-11-23T16:24:29 Duration=01:00:00 Nodes=node2 NodeCnt=1 "
    "CoreCnt=16 Features=(null) PartitionName=(null) Flags=SPEC_NODES TRES=cpu=16 Users=nobody Groups=(null) "
    "Accounts=(null) Licenses=(null) State=ACTIVE BurstBuffer=(null) Watts=n/a MaxStartDelay=(null)\n"
)

QOS_ROWS = """\
normal||00:00:00|cluster||||||
gpu|DenyOnLimit|00:00:30|cluster|02:00:00|4|10|gres/gpu=8||gres/gpu=16
"""

ASSOCIATION_ROWS = "alpha||gpu,normal||||||\n"

CONFIG = """\
Configuration data as of 2026-11-23T15:21:39
AccountingStorageEnforce = associations,limits,qos
AuthInfo                = socket=/run/munge.sock,cred_expire=5
DependencyParameters    = (null)
EnforcePartLimits       = NO
JobRequeue              = 1
KillWait                = 5 sec
MaxArraySize            = 1001
MinJobAge               = 3600 sec
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
SlurmctldParameters     = preempt_send_user_signal
SlurmdTimeout           = 20 sec

Slurmctld(primary) at vm is UP
"""


@pytest.fixture
def facts() -> Facts:
    return Facts(
        version="22.05.8",
        ping_s=0.01,
        config=queue.parse_config(CONFIG),
        partitions=queue.parse_named(PARTITIONS),
        nodes=queue.parse_named(NODES),
        reservations=queue.parse_named(RESERVATIONS),
        accounts_jobs=True,
        associations=queue.parse_rows(ASSOCIATION_ROWS, ASSOCIATION),
        qos={row["Name"]: row for row in queue.parse_rows(QOS_ROWS, QOS)},
        user="eve",
        groups=frozenset({"lab"}),
    )


def site(**slurm: object) -> Site:
    stages = {"train": Resources(nodes=2, ranks_per_node=4, gpus_per_rank=1, threads=2)}
    return Site(name="test", executor="slurm", scale="lab", slurm=Slurm(**slurm), stages=stages)  # type: ignore[arg-type]


def kind(**slurm: object) -> Kind:
    (only,) = kinds_of_site(site(**slurm))
    return only


def changed(facts: Facts, what: str, name: str, **fields: str) -> Facts:
    things = getattr(facts, what)
    return replace(facts, **{what: {**things, name: {**things[name], **fields}}})


def problems(findings: list[Finding]) -> list[str]:
    return [f"{one.check}: {one.found}" for one in findings if one.level is Level.PROBLEM]


def one(findings: list[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


# ---------------------------------------------------------------------------- values


@pytest.mark.parametrize(
    ("text", "expected"),
    [("UNLIMITED", None), ("2-12:00:00", 3600), ("01:30:00", 90), ("90:00", 90), ("45", 45), ("1-06", 1800), ("", None)],
)
def test_time_limits(text: str, expected: float | None) -> None:
    assert minutes(text) == expected


@given(st.integers(0, 50), st.integers(0, 23), st.integers(0, 59))
def test_every_time_limit_that_slurm_prints_is_read(days: int, hours: int, mins: int) -> None:
    assert minutes(f"{days}-{hours:02}:{mins:02}:00") == 1440 * days + 60 * hours + mins


def test_seconds_are_read_in_each_of_slurms_forms() -> None:
    assert [seconds(text) for text in ("30 sec", "20", "00:00:30", "(null)")] == [30, 20, 30, 0]


@pytest.mark.parametrize(
    ("gres", "kind", "expected"),
    [
        ("gpu:a100:8(S:0-1),nvme:1", None, 8),
        ("gpu:a100:8(S:0-1),gpu:h100:2", "h100", 2),
        ("gpu:4", None, 4),
        ("gpu:4", "a100", 0),
        ("(null)", None, 0),
    ],
)
def test_gpus_of_a_node_are_counted_by_type(gres: str, kind: str | None, expected: int) -> None:
    assert gpus(gres, kind) == expected


def test_types_of_gpus_are_listed() -> None:
    assert gpu_types("gpu:a100:8(S:0-1),gpu:h100:2,gpu:3") == {"a100", "h100"}


def test_features_are_found_in_any_expression() -> None:
    assert features("a100&[rack1|rack2]&ib*2") == {"a100", "rack1", "rack2", "ib"}
    assert satisfies({"a100", "ib"}, "a100&ib")
    assert not satisfies({"a100"}, "a100&ib")
    assert satisfies({"a100"}, "a100|h100")


@pytest.mark.parametrize(
    ("state", "expected"), [("IDLE", True), ("MIXED", True), ("IDLE+DRAIN", False), ("DOWN*", False), ("IDLE*", False)]
)
def test_only_nodes_that_take_jobs_are_in_service(state: str, expected: bool) -> None:
    assert in_service(state) is expected


def test_amounts_with_units_are_left_out() -> None:
    assert tres("cpu=128,gres/gpu=16,mem=4G") == {"cpu": 128, "gres/gpu": 16}


# ---------------------------------------------------------------------------- the controller


def test_a_well_configured_cluster_is_all_right(facts: Facts) -> None:
    findings = check_controller(facts, site(), [kind()])
    assert {finding.level for finding in findings} == {Level.OK}
    assert "after 6 s" in one(findings, "requeue").found


def test_an_old_slurm_is_a_problem(facts: Facts) -> None:
    findings = check_controller(replace(facts, version="20.02.7"), site(), [kind()])
    assert problems(findings) == ["Slurm's version: 20.02.7"]


def test_without_accounting_something_degrades(facts: Facts) -> None:
    found = one(check_controller(replace(facts, accounts_jobs=False), site(), [kind()]), "accounting")
    assert (found.level, found.degrades) == (Level.WARNING, "causes of failures and GPU hours come from the ledger only")


def test_the_requeue_delay_is_that_of_credentials() -> None:
    assert [cred_expire_s(text) for text in ("(null)", "cred_expire=30", "socket=/a,cred_expire=3")] == [120, 30, 120]


def test_what_preemption_leaves_time_for_is_told(facts: Facts) -> None:
    assert "told to save 20 s" in check_preemption(facts, "low").found
    assert check_preemption(facts, "high").found == "jobs are not preempted"
    untold = replace(facts, config=facts.config | {"SlurmctldParameters": "(null)"})
    assert check_preemption(untold, "low").degrades == "preemption loses work since the last checkpoint"
    assert "GraceTime is 0" in check_preemption(changed(facts, "partitions", "low", GraceTime="0"), "low").means
    cancelled = check_preemption(changed(facts, "partitions", "low", PreemptMode="CANCEL"), "low")
    assert "cancelled" in cancelled.means


def test_the_time_to_save_is_held_against_the_time_limit_and_a_checkpoint(facts: Facts) -> None:
    usual = site(time_minutes=60, signal_delay_s=120)
    assert check_signal(facts, usual, [kind()]).level is Level.OK
    assert check_signal(facts, usual, [kind()], checkpoint_s=300).do == "raise slurm.signal_delay_s to 600"
    short = check_signal(facts, site(time_minutes=1), [kind(time_minutes=1)])
    assert "as soon as they start" in short.means


# ---------------------------------------------------------------------------- partitions


def test_jobs_that_fit_are_told_in_one_line(facts: Facts) -> None:
    (finding,) = check_kind(kind(), facts)
    assert (finding.level, finding.found) == (Level.OK, "2 nodes with 8 CPUs, 4 GPUs, 60 min")


def test_an_unknown_partition_is_told_with_those_there_are(facts: Facts) -> None:
    finding = check_partition("hih", facts)
    assert finding.level is Level.PROBLEM
    assert finding.do.endswith("this cluster has low, high; did you mean 'high'?")


def test_a_partition_that_is_not_up_or_not_ours_is_a_problem(facts: Facts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1000)
    down = changed(facts, "partitions", "low", State="DOWN")
    assert check_partition("low", down).level is Level.PROBLEM
    assert check_partition("low", changed(facts, "partitions", "low", AllowGroups="lab,staff")).level is Level.OK
    assert check_partition("low", changed(facts, "partitions", "low", AllowGroups="staff")).means == "eve is in none of them"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"MaxTime": "00:30:00"}, "ask for 60 min, allowed are 30"),
        ({"MaxNodes": "1"}, "ask for 2 nodes, allowed are 1"),
        ({"MinNodes": "4"}, "at least 4"),
        ({"ReqResv": "YES"}, "takes jobs with a reservation only"),
    ],
)
def test_what_sbatch_takes_but_can_never_run_is_a_problem(facts: Facts, fields: dict[str, str], told: str) -> None:
    (problem,) = problems(check_kind(kind(), changed(facts, "partitions", "low", **fields)))
    assert told in problem


def test_the_partition_with_room_counts_where_several_are_named(facts: Facts) -> None:
    narrow = changed(facts, "partitions", "low", MaxTime="00:30:00")
    assert problems(check_kind(kind(partition="low,high"), narrow)) == []


def test_accounts_that_a_partition_denies_are_told(facts: Facts) -> None:
    closed = changed(facts, "partitions", "low", AllowAccounts="alpha,beta")
    assert problems(check_kind(kind(account="gamma"), closed)) == [
        "jobs of train in low: not open to the account gamma",
    ]
    assert problems(check_kind(kind(account="beta"), closed)) == []


@pytest.mark.parametrize(
    ("slurm", "short"),
    [({"mem_gb": 64.0}, "memory"), ({"gpu_type": "h100"}, "GPUs"), ({"cpus_per_node": 32}, "CPUs")],
)
def test_what_no_node_has_is_named(facts: Facts, slurm: dict[str, object], short: str) -> None:
    (finding,) = check_kind(kind(**slurm), facts)
    assert finding.means == f"they can never run: there are too few nodes with enough {short}"
    assert "16 CPUs, 15.6 GB, 8 GPUs (types: a100)" in finding.do


def test_nodes_that_are_out_of_service_are_a_warning(facts: Facts) -> None:
    (finding,) = check_kind(kind(), changed(facts, "nodes", "node2", State="IDLE+DRAIN"))
    assert (finding.level, finding.means) == (Level.WARNING, "jobs wait until nodes come back")


def test_unknown_features_reservations_and_their_owners_are_told(facts: Facts) -> None:
    featured = changed(facts, "nodes", "node1", AvailableFeatures="ib,rack1")
    assert "constraint ibb: no node of low has ibb" in problems(check_kind(kind(constraint="ibb"), featured))
    assert "there is: mine" in problems(check_kind(kind(reservation="other"), facts))[0]
    assert problems(check_kind(kind(reservation="mine"), facts)) == ["reservation mine: it is for nobody, not for eve"]
    assert problems(check_kind(kind(reservation="mine"), replace(facts, user="nobody"))) == []


# ---------------------------------------------------------------------------- accounts


def test_the_limits_of_a_qos_are_held_against_the_jobs(facts: Facts) -> None:
    told = check_account(kind(qos="gpu", time_minutes=180), facts)
    assert problems(told) == ["limits of the qos: jobs of train ask for 180 min, the qos allows 120"]
    assert [one.level for one in check_account(kind(qos="gpu", time_minutes=60), facts)] == [Level.OK]
    many = check_account(replace(kind(qos="gpu"), jobs=12), facts)
    assert many[0].degrades == "the launcher must run until the last job is submitted"


def test_an_account_or_qos_of_others_is_told(facts: Facts) -> None:
    assert "not in the account beta" in problems(check_account(kind(account="beta"), facts))[0]
    assert "may not use the qos huge" in problems(check_account(kind(qos="huge"), facts))[0]
    lax = replace(facts, config=facts.config | {"AccountingStorageEnforce": "none"})
    assert [one.level for one in check_account(kind(account="beta"), lax)] == [Level.WARNING]


def test_without_accounting_an_account_is_not_checkable(facts: Facts) -> None:
    unknown = replace(facts, associations=None, qos=None)
    assert "not checkable" in check_account(kind(account="beta"), unknown)[0].found
    assert check_account(kind(), unknown)[0].level is Level.OK


# ---------------------------------------------------------------------------- kinds and probes


def test_stages_sent_elsewhere_are_a_kind_of_their_own() -> None:
    stages = {
        "train": Resources(nodes=2, ranks_per_node=2),
        "judge": Resources(
            slurm=JobOptions(partition="cpu"), software=Software(container=Container(runtime="pyxis", image="i"))
        ),
    }
    both = Site(name="test", executor="slurm", scale="lab", stages=stages)
    by_partition = {one.shape.placement.partition: one for one in kinds_of_site(both)}
    assert by_partition["cpu"].stages == ("judge",)
    assert (by_partition[None].stages, by_partition[None].shape.nodes) == (("train",), 2)


def test_this_file_system_can_do_what_the_store_needs(tmp_path: Path) -> None:
    abilities = probe.files(tmp_path)
    assert (abilities["link"], abilities["rename"], abilities["lock"]) == (None, None, None)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_imported_is_told_with_the_reason() -> None:
    answer = probe.packages(["json", "no_such_package"])
    assert list(answer["found"]) == ["json"]
    assert answer["broken"] == {"no_such_package": "ModuleNotFoundError: No module named 'no_such_package'"}


# ---------------------------------------------------------------------------- answers of probe jobs


def answered(gpus: int = 0, **changes: object) -> Probe:
    rank = {"node": "node1", "meets": None, "sees_files": True, "gpus": "0", "signalled": True}
    packages = {"python": "3.11.7", "found": {"torch": "2.8.0"}, "broken": {}, "gpus": 1, "seconds": 5.0}
    answer = {
        "node": "node1",
        "python": "3.11.7",
        "files": {"link": None, "rename": None, "lock": None, "mb_per_s": 500.0},
        "free_gb": 900.0,
        "tmp": {"folder": "/tmp", "free_gb": 90.0},
        "open_files": 65536,
        "internet": None,
        "step": {"code": 0, "said": "", "scancel": None, "address": "node1", "ranks": [rank]},
        "driver_signalled": True,
        "software": {"vllm": packages},
    }
    places = {"echoed": 100.0, "ponged": 100.4, "there": 100.2}
    return Probe(kind(), Path(), {"vllm": Software()}, 1, gpus, answer={**answer, **changes}, **places)


def told(probe: Probe, **site_changes: object) -> dict[str, Finding]:
    where = site().model_copy(update=site_changes)
    return {one.check: one for one in check_probe(probe, where, lambda software: ["torch"], needs_hub=True, among=1)}


def test_a_sound_node_has_no_problem() -> None:
    findings = told(answered(gpus=1))
    assert {one.level for one in findings.values()} == {Level.OK}
    assert findings["clocks"].found.startswith("the node's clock differs from this one by 0.0 s")


def test_a_clock_that_is_wrong_is_told_apart_from_slow_files() -> None:
    wrong, slow = answered(), answered()
    wrong.there = 400.0
    slow.ponged = 140.0
    slow.there = 139.0
    assert (told(wrong)["clocks"].level, told(wrong)["shared file system"].level) == (Level.WARNING, Level.OK)
    assert (told(slow)["clocks"].level, told(slow)["shared file system"].level) == (Level.OK, Level.WARNING)


def test_nodes_without_internet_need_a_site_that_is_offline() -> None:
    cut_off = answered(internet="timed out")
    assert told(cut_off)["internet on the nodes"].do.startswith("set offline: true")
    assert told(cut_off, offline=True)["internet on the nodes"].level is Level.OK


def test_what_a_node_lacks_is_told_with_what_follows() -> None:
    no_links = {"link": "Operation not permitted", "rename": None, "lock": None, "mb_per_s": 1.0}
    assert "two jobs could make the same artifact" in told(answered(files=no_links))["file system's abilities"].means
    deaf = told(answered(driver_signalled=False))["signals"]
    assert (deaf.level, deaf.found) == (Level.WARNING, "USR2 did not reach the driver")
    blind = {"vllm": {"python": "3.11.7", "found": {"torch": "2.8.0"}, "broken": {}, "gpus": 0, "seconds": 5.0}}
    assert "torch sees no GPU" in told(answered(gpus=1, software=blind))["software, vllm"].found
    no_srun = {"code": 1, "said": "srun: error: Only allocated 1 nodes", "scancel": None, "address": "node1", "ranks": []}
    assert "Only allocated 1 nodes" in told(answered(step=no_srun))["nested steps"].found
