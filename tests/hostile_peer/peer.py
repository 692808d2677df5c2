"""A hostile peer: attacks a running cluster with another QUIC implementation, and looks what became of it.

peer.py topology FROM TO            copies a topology with free ports
peer.py attack GAGGLE WORK [NAME]…  runs the attacks (docs/hostile.md); exit status 1 if anything is amiss
"""

import asyncio
import pathlib
import statistics
import sys
import time

from attacks import ATTACKS, Scene
from cluster import Cluster, Witness, own_ports

# What an honest person may wait in an attack, and what a process may grow by.
WORST_MS = 2000
GROWTH_MIB = 256


def describe(times):
    if not times:
        return "none"
    return f"p50 {statistics.median(times):.1f} worst {max(times):.0f} ms of {len(times)}"


async def one(name, cluster, scene, witness):
    attacked = cluster.target if name != "assignments" else cluster.master
    cluster.forget_peak(attacked)
    before, cpu, began = cluster.memory(attacked), cluster.cpu(attacked), time.time()
    sent, did = await ATTACKS[name](scene)
    # Two rounds of the witness at least, and its answer to what it asked last.
    while time.time() < began + 1.5 or (witness.waiting() and time.time() < began + 60):
        await asyncio.sleep(0.1)
    ended = time.time()
    cpu = (cluster.cpu(attacked) - cpu) / (ended - began)
    peak = cluster.memory(attacked, "VmHWM")
    amiss = await asyncio.to_thread(cluster.troubles)
    times, wrong = witness.seen(began, ended)
    amiss += sorted(set(wrong))
    amiss += [f"an honest {kind} took {max(found):.0f} ms" for kind, found in times.items() if found and max(found) > WORST_MS]
    amiss += [] if times["post"] else ["no honest post was answered"]
    amiss += [f"memory grew by {peak - before:.0f} MiB"] if peak - before > GROWTH_MIB else []
    print(f"{name}: {sent}\n    did: {did}")
    print(f"    posts: {describe(times['post'])}; commands: {describe(times['command'])}; {attacked}: {cpu:.0%} CPU, "
          f"{before:.0f} -> {peak:.0f} peak -> {cluster.memory(attacked):.0f} MiB")
    print("".join(f"    AMISS: {trouble}\n" for trouble in amiss), end="", flush=True)
    return bool(amiss)


async def attack(gaggle, work, names):
    cluster = Cluster(gaggle)
    witness = Witness(gaggle, pathlib.Path(work, "witness.jsonl"))
    await asyncio.sleep(2)
    scene, bad = Scene(cluster, work), []
    print(f"attacked: {cluster.target}, the primary of lenss3; {len(cluster.pids)} processes")
    times, _ = witness.seen(time.time() - 1, time.time())
    print(f"calm: posts {describe(times['post'])}")
    for name in names or ATTACKS:
        if await one(name, cluster, scene, witness):
            bad.append(name)
    witness.end()
    print(f"{len(names or ATTACKS)} attacks, {len(bad)} with something amiss: {' '.join(bad)}")
    return 1 if bad else 0


if __name__ == "__main__":
    if sys.argv[1] == "topology":
        own_ports(*sys.argv[2:])
    else:
        sys.exit(asyncio.run(attack(sys.argv[2], sys.argv[3], sys.argv[4:])))
