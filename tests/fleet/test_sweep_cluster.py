"""Sweeps on a cluster of dask.distributed: a scheduler and two worker processes of this machine, on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import distributed
import pytest
from run_rig import fleet
from sweep_rig import calm, cases, dies_at_three

from fleet.sweep.pool import Here, opened
from fleet.sweep.sweep import Wanted, sweep


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    made: Any = distributed
    with made.LocalCluster(
        n_workers=2,
        threads_per_worker=1,
        host="127.0.0.1",
        dashboard_address=None,
        worker_dashboard_address=None,
        scheduler_kwargs={"allowed_failures": 0},  # else a case that kills its worker is tried on three others
    ) as running:
        yield str(running.scheduler_address)


def test_a_cluster_gives_what_one_process_gives(cluster: str) -> None:
    with opened(1, cluster) as pool:
        assert pool.workers == 2
        there = sweep(pool, cases(4, calm()), Wanted(2))
    here = sweep(Here(), cases(4, calm()), Wanted(2))
    assert (there.runs, there.passed, there.doubled, there.mismatches) == (4, 4, 2, 0)
    assert there.probes == here.probes and there.synced == here.synced and there.virtual_s == here.virtual_s


def test_a_worker_of_a_cluster_that_dies_costs_its_seed(cluster: str) -> None:
    with opened(1, cluster) as pool:
        result = sweep(pool, cases(12), Wanted(0), function=dies_at_three)
    assert (result.runs, result.errors, result.failed, result.exit_code()) == (12, 1, 4, 4)


def test_a_scheduler_that_does_not_answer_is_bad_input() -> None:
    done = fleet("sweep", "baseline", "--seeds", "1", "--cluster", "tcp://127.0.0.1:1")
    assert done.returncode == 2 and "--cluster" in done.stderr and "Traceback" not in done.stderr
