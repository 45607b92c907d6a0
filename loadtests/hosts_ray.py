"""Ray's rows of hosts.py: as many nodes on this machine, and a plain ``remote`` map.

Runs in an environment of its own, which has no gmpd: ``hosts.py --ray`` makes it. Reads the name of
a kind of job and a number of jobs from each line of input, and writes a line once they have run.
"""

from __future__ import annotations

import sys
import time

import ray
from ray.cluster_utils import Cluster

#: Bytes of each node's object store: the jobs have no large values.
STORE = 100 << 20


def noop(i: int) -> int:
    return i


def millis(i: int) -> int:
    ends = time.thread_time() + 0.001
    while time.thread_time() < ends:
        pass
    return i


def main(nodes: int, cores: int) -> None:
    cluster = Cluster()
    for _ in range(nodes):
        cluster.add_node(num_cpus=cores, object_store_memory=STORE, include_dashboard=False)
    ray.init(address=cluster.address, log_to_driver=False)
    functions = {"no-op": ray.remote(noop), "1 ms": ray.remote(millis)}
    print("ready", flush=True)
    for line in sys.stdin:
        kind, _, n = line.strip().rpartition(" ")
        function = functions[kind]
        ray.get([function.remote(i) for i in range(int(n))])
        print("done", flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
