from __future__ import annotations

import pytest

from eva_hpc.cluster.reasons import Outlook, explain_reason


@pytest.mark.parametrize(
    ("code", "outlook"),
    [
        ("Priority", Outlook.STARTS),
        ("Resources", Outlook.STARTS),
        ("None", Outlook.STARTS),
        ("BeginTime", Outlook.STARTS),
        ("Dependency", Outlook.STARTS),
        ("JobArrayTaskLimit", Outlook.STARTS),
        ("QOSMaxJobsPerUserLimit", Outlook.STARTS),
        ("AssocGrpGRES", Outlook.STARTS),
        ("QOSGrpCpuLimit", Outlook.STARTS),
        ("AssocMaxJobsLimit", Outlook.STARTS),
        ("AssocGrpCPUMinutesLimit", Outlook.STARTS),
        ("MaxGRESPerAccount", Outlook.STARTS),
        ("JobHeldUser", Outlook.RELEASE),
        ("launch failed requeued held", Outlook.RELEASE),
        ("JobHeldAdmin", Outlook.OTHERS),
        ("ReqNodeNotAvail", Outlook.OTHERS),
        ("Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions", Outlook.OTHERS),
        ("PartitionDown", Outlook.OTHERS),
        ("PartitionNodeLimit", Outlook.NEVER),
        ("PartitionTimeLimit", Outlook.NEVER),
        ("PartitionConfig", Outlook.NEVER),
        ("DependencyNeverSatisfied", Outlook.NEVER),
        ("BadConstraints", Outlook.NEVER),
        ("QOSMaxGRESPerJob", Outlook.NEVER),
        ("QOSMaxWallDurationPerJobLimit", Outlook.NEVER),
        ("MaxNodePerJob", Outlook.NEVER),
        ("QOSMinGRES", Outlook.NEVER),
    ],
)
def test_reasons_say_whether_a_job_can_ever_run(code: str, outlook: Outlook) -> None:
    reason = explain_reason(code)

    assert reason.outlook is outlook
    assert reason.meaning
    assert reason.is_stuck == (outlook in (Outlook.NEVER, Outlook.RELEASE))
    assert bool(reason.advice) or not reason.is_stuck


def test_nodes_that_are_not_available_are_named() -> None:
    assert "node[3-4]" in explain_reason("ReqNodeNotAvail, UnavailableNodes:node[3-4]").meaning
    assert explain_reason("ReqNodeNotAvail, UnavailableNodes:node[3-4]").code == "ReqNodeNotAvail"


def test_a_word_that_is_new_to_us_is_shown_as_it_is() -> None:
    assert "SomethingNew" in explain_reason("SomethingNew").meaning
