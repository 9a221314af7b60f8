"""A Flower deployment on this machine, as processes: SuperLink with TLS and authenticated SuperNodes, and kills.

    python tests/faults/flower_deployment.py --out RUN_DIR [--nodes 8] [--threshold 5] [--quick] [--protections]

Every command it runs is printed as it would be typed. With ``--protections``: every SuperNode has pinned identities and
there is a helper; one run each of signed masked sums, shared, and ckks with a key holder and with a threshold key.
Otherwise, runs of examples/flower_app in one deployment:

1. masked, 3 rounds: the mean is compared with that of the clients' updates, trained again;
2. plain FedAvg in the same deployment, for its bytes and seconds;
3. masked, one run per protocol step: ``nodes - threshold`` SuperNodes are killed with SIGKILL while they work on that
   step of the first round, and the run goes on for another round; the dead are started again between the runs;
4. masked, one more SuperNode killed than the threshold allows; the dead are started again while the run goes on.

A SuperLink holds a SuperNode for alive for a minute after its last sign of life and does not let it in again before.

Prints a table, writes RUN_DIR/deployment.json, and exits with status 1 when a round did not end as it must.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
STEPS = ("advertise keys", "share keys", "masked input", "unmask")
SECONDS = 900.0  # no run may take longer


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def write_certificates(folder: Path) -> None:
    """A CA and the SuperLink's certificate for localhost."""
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "server")}
    ca = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "deployment CA")])
    for name, key in keys.items():
        subject = ca if name == "ca" else x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(ca).public_key(key.public_key())
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(now + datetime.timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(keys["ca"].public_key())
        builder = builder.add_extension(issuer, critical=False)
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        if name == "server":
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(keys["ca"], hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (folder / f"{name}.key").write_bytes(private)


def write_supernode_key(folder: Path, name: str) -> None:
    """What ``ssh-keygen -t ecdsa -b 384 -N "" -f NAME`` writes."""
    key = ec.generate_private_key(ec.SECP384R1())
    no_password = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, no_password)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (folder / name).write_bytes(private)
    (folder / name).chmod(0o600)
    (folder / f"{name}.pub").write_bytes(public)


class Deployment:
    """The processes; each in a group of its own, so that a SuperNode dies with its application."""

    def __init__(self, folder: Path, nodes: int, *, pinned: bool = False) -> None:
        self.folder, self.nodes, self.port, self.pinned = folder, nodes, free_port(), pinned
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {
            **os.environ,
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "FLWR_HOME": str(folder / "flwr-home"),
            "FLWR_TELEMETRY_ENABLED": "0",
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }

    def command(self, *words: str) -> list[str]:
        print("$", shlex.join(words), flush=True)
        return [str(BIN / words[0]), *words[1:]]

    def start(self) -> None:
        write_certificates(self.folder)
        home = self.folder / "flwr-home"
        home.mkdir()
        (home / "config.toml").write_text(
            f'[superlink]\ndefault = "tls"\n\n[superlink.tls]\naddress = "localhost:{self.port}"\n'
            f'root-certificates = "{self.folder / "ca.pem"}"\n'
        )
        tls = ["--ssl-ca-certfile", "ca.pem", "--ssl-certfile", "server.pem", "--ssl-keyfile", "server.key"]
        where = ["--host", "127.0.0.1", "--port", str(self.port)]
        self._spawn("superlink", "flower-superlink", *tls, "--enable-supernode-auth", *where)
        self._until(self._listens, 60, "the SuperLink does not listen")
        everybody = range(self.nodes + self.pinned)  # the last one is the helper
        for at in everybody:
            write_supernode_key(self.folder, f"node{at}")
            self.run_to_end("flwr", "supernode", "register", f"node{at}.pub", "tls")
        if self.pinned:
            self.write_peers()
        for at in everybody:
            self.start_node(at)

    def write_peers(self) -> None:
        """An identity for every SuperNode and the server, and the list of public keys that all of them pin."""
        public = {}
        for name in [*(f"identity{at}" for at in range(self.nodes + 1)), "identity-server"]:
            print("$", shlex.join(["python", "-m", "securefl.integrations.peers", name]), flush=True)
            made = [sys.executable, "-m", "securefl.integrations.peers", name]
            ran = subprocess.run(made, cwd=self.folder, env=self.env, capture_output=True, text=True, check=True)
            public[name] = ran.stdout.strip()
        clients = ", ".join(f'"{public[f"identity{at}"]}"' for at in range(self.nodes))
        helper, server = public[f"identity{self.nodes}"], public["identity-server"]
        (self.folder / "peers.toml").write_text(f'clients = [{clients}]\nhelper = "{helper}"\nserver = "{server}"\n')

    def start_node(self, at: int) -> None:
        identity = ["--root-certificates", "ca.pem", "--auth-supernode-private-key", f"node{at}"]
        floors = "securefl-minimum-clients=4 securefl-minimum-threshold=3"
        if self.pinned:
            files = {"securefl-identity": f"identity{at}", "securefl-peers": "peers.toml"}
            floors += "".join(f' {key}="{self.folder / name}"' for key, name in files.items())
            floors += ' securefl-role="helper"' if at == self.nodes else ""
        config = ["--node-config", f"partition-id={at} num-partitions={self.nodes + 1} {floors}"]
        where = ["--superlink", f"localhost:{self.port}", "--port", str(free_port())]
        self._spawn(f"node{at}", "flower-supernode", *identity, *where, *config)

    def _spawn(self, name: str, *words: str) -> None:
        log = (self.folder / f"{name}.log").open("wb")
        self.processes[name] = subprocess.Popen(
            self.command(*words), cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True
        )
        log.close()

    def run_to_end(self, *words: str) -> None:
        ran = subprocess.run(
            self.command(*words),
            cwd=self.folder,
            env=self.env,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if ran.returncode:
            raise SystemExit(f"{words[0]} failed:\n{ran.stdout}\n{ran.stderr}")

    def received(self, at: int) -> int:
        """How many messages of a run this SuperNode has taken since it was started."""
        return self.log(f"node{at}").count("Receiving: train message")

    def log(self, name: str) -> str:
        path = self.folder / f"{name}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self, at: int) -> None:
        """SIGKILL to the SuperNode and its application."""
        process = self.processes.pop(f"node{at}")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        for process in self.processes.values():
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def _until(self, done: Any, seconds: float, sentence: str) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            if time.monotonic() > deadline:
                raise SystemExit(f"{sentence} after {seconds:.0f} s; see {self.folder}")
            time.sleep(0.2)

    # ---- a run ------------------------------------------------------------------------------------------------

    def run(
        self, app: Path, name: str, kill: tuple[int, int] = (0, 0), revive: bool = False, **config: Any
    ) -> dict[str, Any]:
        """One ``flwr run``; ``kill``: how many SuperNodes die in its first round, and at which step.

        ``revive``: start them again when that round is over; otherwise after the run. Gives the app's RESULT line.
        """
        given = " ".join(f"{key.replace('_', '-')}={json.dumps(value)}" for key, value in config.items())
        words = self.command("flwr", "run", str(app), "tls", "--stream", "--run-config", given)
        path = self.folder / f"{name}.log"
        before = [self.received(at) for at in range(self.nodes)]
        with path.open("wb") as log:
            running = subprocess.Popen(
                words, cwd=self.folder, env=self.env, stdout=log, stderr=log, start_new_session=True
            )
        self.processes[f"run {name}"] = running
        deadline = time.monotonic() + SECONDS
        victims, dead = set(range(kill[0])), set[int]()
        while "RESULT " not in self.log(name):
            for at in sorted(victims - dead):
                if self.received(at) - before[at] > kill[1]:
                    print(f"kill -9 node{at} in step {kill[1] + 1} ({STEPS[kill[1]]})", flush=True)
                    self.kill(at)
                    dead.add(at)
            if revive and dead and re.search(r"^round \{", self.log(name), flags=re.MULTILINE):
                self.revive(dead, wait=False)
                revive = False
            if running.poll() is not None and "RESULT " not in self.log(name):
                raise SystemExit(f"the run ended without a result; see {path}\n{self.log(name)[-3000:]}")
            if time.monotonic() > deadline:
                raise SystemExit(f"the run hangs; see {path}\n{self.log(name)[-3000:]}")
            time.sleep(0.02)
        running.wait(timeout=60)
        del self.processes[f"run {name}"]
        self.revive({at for at in dead if f"node{at}" not in self.processes}, wait=True)
        line = next(line for line in self.log(name).splitlines() if line.startswith("RESULT "))
        return dict(json.loads(line.removeprefix("RESULT ")))

    def revive(self, dead: set[int], wait: bool) -> None:
        """Start the dead again; ``wait`` until the SuperLink has let them in."""
        for at in sorted(dead):
            self.start_node(at)
        if wait:
            self._until(lambda: all("SuperNode ID:" in self.log(f"node{at}") for at in dead), 180, "a SuperNode is out")


def plain_app(folder: Path) -> Path:
    """The same app without SecureMod."""
    app = folder / "plain_app"
    shutil.copytree(ROOT / "examples/flower_app", app, ignore=shutil.ignore_patterns("__pycache__"))
    text = (app / "pyproject.toml").read_text()
    (app / "pyproject.toml").write_text(text.replace("client_app:app", "client_app:plain_app"))
    return app


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="an empty or new folder for keys, logs and figures")
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--threshold", type=int, default=5)
    parser.add_argument("--step-seconds", type=float, default=40.0, help="deadline of an exchange")
    parser.add_argument("--quick", action="store_true", help="one round without kills, kills at one step")
    parser.add_argument("--protections", action="store_true", help="the other protections, between pinned identities")
    asked = parser.parse_args()
    if asked.threshold < 4 and not asked.protections:
        parser.error(
            "the SuperNodes' own floor is 4 invited clients, and later rounds invite the survivors: --threshold 4"
        )
    folder = asked.out.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty")
    deployment = Deployment(folder, asked.nodes, pinned=asked.protections)
    spare, rounds = asked.nodes - asked.threshold, 1 if asked.quick else 3
    common = {"nodes": asked.nodes, "threshold": asked.threshold, "step_seconds": asked.step_seconds}
    common |= {"train_seconds": asked.step_seconds}
    app, faults = ROOT / "examples/flower_app", []
    if asked.protections:
        return protections(deployment, app, 1 if asked.quick else 2, common)
    try:
        deployment.start()
        masked = deployment.run(app, "masked", num_server_rounds=rounds, **common)
        plain = deployment.run(plain_app(folder), "plain", num_server_rounds=rounds, protect="none", **common)
        for step in [2] if asked.quick else range(4):
            one = deployment.run(app, f"kill-{step + 1}", (spare, step), num_server_rounds=2, **common)
            faults.append((spare, step, one))
        if not asked.quick:
            one = deployment.run(app, "below", (spare + 1, 2), revive=True, num_server_rounds=4, **common)
            faults.append((spare + 1, 2, one))
    finally:
        deployment.stop()
    figures = judge(masked, plain, faults, asked)
    (folder / "deployment.json").write_text(json.dumps(figures, indent=1))
    for line in figures["problems"]:
        print("problem:", line)
    return 1 if figures["problems"] else 0


def protections(deployment: Deployment, app: Path, rounds: int, common: dict[str, Any]) -> int:
    """One run under each protection; 1 when a mean is not that of all clients."""
    chosen = {
        "masked, signed": ({"protect": "masked", "identities": True}, 5),
        "shared": ({"protect": "shared"}, 3),
        "ckks, key holder": ({"protect": "ckks", "key_model": "key_holder"}, 3),
        "ckks, threshold key": ({"protect": "ckks", "key_model": "threshold"}, 5),
    }
    common = {**common, "server_identity": str(deployment.folder / "identity-server"), "num_server_rounds": rounds}
    figures, wrong = {}, []
    try:
        deployment.start()
        for label, (how, exchanges) in chosen.items():
            run = deployment.run(app, label.replace(", ", "-").replace(" ", "-"), **common, **how)
            figures[label] = run
            for entry in run["rounds"]:
                exact = entry.get("check", {}).get("exact", False)
                print(
                    f"{label}, round {entry['round']}: {entry['survivors']} of {deployment.nodes} in the sum, "
                    f"exact: {exact}, "
                    f"{entry['bytes_up'] / 1e6:.3f} MB up, {entry['exchanges']} exchanges, {entry['seconds']} s",
                    flush=True,
                )
                if not exact or entry["survivors"] != deployment.nodes or entry["exchanges"] != exchanges:
                    wrong.append(f"{label}: {entry}")
    finally:
        deployment.stop()
    (deployment.folder / "deployment.json").write_text(json.dumps({"runs": figures, "problems": wrong}, indent=1))
    for line in wrong:
        print("problem:", line)
    return 1 if wrong else 0


def judge(masked: Any, plain: Any, faults: list[tuple[int, int, Any]], asked: Any) -> dict[str, Any]:
    """Print the table; say what did not end as it must."""
    problems: list[str] = []
    columns = "{:<36} {:>9} {:>6} {:>9} {:>8} {:>8}  {}"
    print(columns.format("round", "survivors", "exact", "error", "MB up", "seconds", "outcome"))

    def show(label: str, entry: Any) -> str:
        check = entry.get("check", {})
        exact = "-" if not check else "yes" if check["exact"] else "NO"
        error = f"{check['error']:.1e}" if check else "-"
        row = (label, entry.get("survivors", "-"), exact, error, f"{entry['bytes_up'] / 1e6:.3f}", entry["seconds"])
        print(columns.format(*row, entry.get("failed") or "mean"))
        return exact

    limit = len(STEPS) * asked.step_seconds + 30

    def check(label: str, entry: Any, allowed: tuple[int, ...]) -> None:
        exact = show(label, entry)
        if entry["failed"] or entry["survivors"] not in allowed or exact != "yes":
            problems.append(f"{label}: expected the exact mean over {allowed} clients, got {entry}")
        elif entry["exchanges"] != len(STEPS):
            problems.append(f"{label}: {entry['exchanges']} exchanges")
        if entry["seconds"] > limit:
            problems.append(f"{label}: {entry['seconds']} s; its deadlines add up to {limit} s")

    for entry in masked["rounds"]:
        check(f"masked, round {entry['round']}", entry, (asked.nodes,))
    for entry in plain["rounds"]:
        show(f"plain FedAvg, round {entry['round']}", entry)
    for dead, step, run in faults:
        first, *later = run["rounds"]
        label = f"{dead} killed at {STEPS[step]}"
        alive = asked.nodes - dead
        if alive < asked.threshold:
            show(label, first)
            if not str(first["failed"]).startswith("TooFewClientsError"):
                problems.append(f"{label}: expected TooFewClientsError, got {first['failed']}")
            for entry in later[:-1]:
                show(f"  round {entry['round']}, the dead on their way back", entry)
            check(f"  round {later[-1]['round']}", later[-1], tuple(range(asked.threshold, asked.nodes + 1)))
            continue
        # a client whose masked input has arrived is in the sum, though it dies before it unmasks
        check(label, first, (asked.nodes,) if step == 3 else (alive,))
        for entry in later:
            check(f"  round {entry['round']}, without them", entry, (alive,))
    ratio = masked["rounds"][-1]["bytes_up"] / plain["rounds"][-1]["bytes_up"]
    seconds = [sorted(e["seconds"] for e in run["rounds"])[len(run["rounds"]) // 2] for run in (masked, plain)]
    print(f"bytes up against plain float32: {ratio:.3f}; seconds per round: {seconds[0]} masked, {seconds[1]} plain")
    if ratio > 0.75:
        problems.append(f"{ratio:.3f} of the plain upload; at most 0.75")
    return {
        "masked": masked,
        "plain": plain,
        "faults": faults,
        "upload_ratio": ratio,
        "seconds": {"masked": seconds[0], "plain": seconds[1]},
        "problems": problems,
    }


if __name__ == "__main__":
    sys.exit(main())
