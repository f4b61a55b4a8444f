"""Processes that are killed."""

from __future__ import annotations

import pytest

from tests.cluster.chaos.disturb import Chaos, kill

pytestmark = pytest.mark.slow


@pytest.mark.chaos
def test_a_rank_is_killed_while_it_generates(chaos: Chaos) -> None:
    chaos.start(slow={"generate": 0.4})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 6)
    kill(chaos.ranks("generate")[1])
    chaos.finish()

    assert [event["cause"] for event in chaos.events("retried")] == ["killed"]
    assert len(chaos.events("begun")) == 1
    chaos.verify()


@pytest.mark.chaos
def test_a_rank_is_killed_while_it_trains(chaos: Chaos) -> None:
    chaos.start(slow={"train": 0.3})
    chaos.until(lambda: chaos.checkpoint() > 0 and chaos.steps() >= chaos.checkpoint() + 5)
    kill(chaos.ranks("train")[1])
    chaos.finish()

    assert [event["cause"] for event in chaos.events("retried")] == ["killed"]
    assert len(chaos.events("begun")) == 1
    chaos.verify()


@pytest.mark.chaos
def test_the_driver_is_killed_while_its_job_generates(chaos: Chaos) -> None:
    chaos.start(slow={"generate": 0.4})
    chaos.until(lambda: len(chaos.chunks("generate")) >= 6)
    kill(chaos.driver())
    chaos.finish()

    assert len(chaos.events("submitted")) == 2
    chaos.verify()


@pytest.mark.chaos
def test_the_driver_is_killed_while_its_job_trains(chaos: Chaos) -> None:
    chaos.start(slow={"train": 0.3})
    chaos.until(lambda: chaos.checkpoint() > 0 and chaos.steps() >= chaos.checkpoint() + 5)
    kill(chaos.driver())
    chaos.finish()

    assert [event["decision"] for event in chaos.events("decision")] == ["resubmit"]
    assert len(chaos.events("submitted")) == 2
    chaos.verify()
