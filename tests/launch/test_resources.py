"""How simulated clients share this machine, and the environment of Flower's commands."""

import pytest

from fgl_app.launch.flower import flower_environment
from fgl_app.launch.resources import Machine, federation_config


@pytest.mark.parametrize(
    ("clients", "machine", "share", "expected"),
    [
        # Two CPUs, five clients: two at a time, a CPU each.
        (5, Machine(2, 0), None, (5, 1, 0.0, 2)),
        # 16 CPUs: three for each of five clients, one stays free.
        (5, Machine(16, 0), None, (5, 3, 0.0, 15)),
        (100, Machine(16, 0), None, (100, 1, 0.0, 16)),
        # Five at a time on one GPU: a fifth each. Sixteen at a time on three: at most six share one.
        (5, Machine(16, 1), None, (5, 3, 0.2, 15)),
        (100, Machine(16, 3), None, (100, 1, 0.1666, 16)),
        (2, Machine(16, 4), None, (2, 8, 1.0, 16)),
        (5, Machine(16, 1), 0.5, (5, 3, 0.5, 15)),
        (5, Machine(16, 1), 0.0, (5, 3, 0.0, 15)),
    ],
)
def test_clients_that_run_at_a_time_share_the_machine(clients, machine, share, expected):
    supernodes, cpus, gpus, total_cpus = expected
    assert federation_config(clients, machine, share) == (
        f"num-supernodes={supernodes} client-resources-num-cpus={cpus} "
        f"client-resources-num-gpus={gpus} init-args-num-cpus={total_cpus}"
    )


def test_flower_does_not_connect_to_a_ray_cluster(monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:6379")
    assert "RAY_ADDRESS" not in flower_environment(tmp_path)
