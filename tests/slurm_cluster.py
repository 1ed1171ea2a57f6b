"""A Slurm cluster of one node for tests: Debian's slurm-wlm and munge, without systemd, cgroups or a database."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol", "sinfo")
CONF = """
ClusterName=patchbench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0
KillWait=10
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=work Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class CannotStart(Exception):
    """Slurm is not installed here, or does not start."""


@contextlib.contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """The environment in which Slurm's programs talk to a cluster on loopback, which ends with the block."""
    missing = [name for name in PROGRAMS if _found(name) is None]
    if missing:
        raise CannotStart(f"no {', '.join(missing)} here: apt-get install slurm-wlm munge")
    folder = Path(tempfile.mkdtemp(prefix="slurm-"))
    folder.chmod(0o755)  # munged, as another user, has its own folder in it
    host = socket.gethostname().partition(".")[0]
    controller, node = _free_ports(2)
    cpus = os.cpu_count()
    conf = folder / "slurm.conf"
    conf.write_text(CONF.format(**locals(), user=getpass.getuser()))
    environment = {**os.environ, "SLURM_CONF": str(conf)}
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        for part in ("munge", "state", "spool"):
            (folder / part).mkdir()
        _start(folder, environment, host, daemons)
        yield environment
    finally:
        _stop(conf, daemons)
        shutil.rmtree(folder, ignore_errors=True)


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _start(folder: Path, environment: dict[str, str], host: str, daemons: list[subprocess.Popen[bytes]]) -> None:
    own = folder / "munge"
    (own / "key").write_bytes(os.urandom(1024))
    (own / "key").chmod(0o600)
    (own).chmod(0o755 if os.geteuid() else 0o700)
    user = None
    if os.geteuid() == 0:  # as which munged does not like to run
        user = "munge"
        for path in (own, own / "key"):
            shutil.chown(path, user, user)
    munged = ["munged", "--foreground", "--force", f"--socket={own}/socket", f"--key-file={own}/key"]
    munged += [f"--pid-file={own}/pid", f"--log-file={own}/log", f"--seed-file={own}/seed"]

    def daemon(command: list[str], user: str | None = None) -> None:
        command = [str(_found(command[0])), *command[1:]]
        log = (folder / f"{Path(command[0]).name}.out").open("wb")
        with log:
            daemons.append(
                subprocess.Popen(
                    command, env=environment, stdout=log, stderr=log, user=user, group=user, start_new_session=True
                )
            )

    def until(happens: Callable[[], object]) -> None:
        deadline = time.monotonic() + 60
        while not happens():
            dead = [one for one in daemons if one.poll() is not None]
            if dead or time.monotonic() > deadline:
                said = [line for path in folder.glob("*.out") for line in path.read_text().splitlines()[-3:]]
                raise CannotStart(f"Slurm does not start here: {'; '.join(said)}")
            time.sleep(0.1)

    daemon(munged, user)
    until((own / "socket").exists)
    daemon(["slurmctld", "-D"])
    daemon(["slurmd", "-D", "-N", host])
    asked = ["sinfo", "--noheader", "--format=%T"]
    until(lambda: subprocess.run(asked, env=environment, capture_output=True, text=True).stdout.strip() == "idle")


def _stop(conf: Path, daemons: list[subprocess.Popen[bytes]]) -> None:
    """End the daemons and whatever they began, which has our slurm.conf in its environment."""
    for one in reversed(daemons):
        one.kill()
        one.wait()
    for _ in range(3):  # one that was killed may have begun another
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if f"SLURM_CONF={conf}\0".encode() in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.1)
