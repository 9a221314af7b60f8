#!/usr/bin/env python3
"""Every task of a developer, with nothing but Python: makes .venv beside this file, keeps it current, runs the task.

    python3 dev.py run [ARGS]        train as configured              python -m securefl run ARGS
    python3 dev.py demo [ARGS]       watch a protocol happen          python -m securefl demo ARGS
    python3 dev.py test [ARGS]       tests; e.g. test -k shamir       python -m pytest ARGS
    python3 dev.py check             ruff, mypy, import-linter        all of them, even if one fails
    python3 dev.py vectors [ARGS]    regenerate, or --check, vectors  python protocols/generate.py ARGS
    python3 dev.py bench [ARGS]      measure; --peers adds the peers  python -m securefl bench ARGS
    python3 dev.py integrations [ARGS]  tests inside Flower, NVFLARE  python -m pytest ARGS, slow tests too

Exit status: that of the task; 2 on bad usage. Versions are those of constraints.txt.
"""
# Parses on any Python, 2.7 too, so that an old one can be told so: ASCII, no f-strings, no annotations.

import hashlib
import json
import os
import subprocess
import sys

MINIMUM = (3, 11)
PEER = "flwr==1.42.0"  # the extra `bench`
PEER_NEEDS = ["fastapi<0.139", "grpcio<2", "httpx<1", "iterators<0.0.3", "protobuf<7", "pyyaml<7", "requests<3"]
PEER_NEEDS += ["tomli<3", "tomli-w<2"]
# What benchmarks measure against, each without its dependencies, and what it then needs of them (see install_peers).
PEERS = [
    (PEER, PEER_NEEDS),
    ("crypten==0.4.1", ["omegaconf<3", "onnx<2", "protobuf<7", "pyyaml<7"]),
]
# What `integrations` tests inside: engine: (what goes in without its dependencies, what goes in with them, test files).
# flwr cannot be resolved beside our pins (see install_peers) and runs with them; the processes of a deployment need
# more of its dependencies than its secure aggregation does. Each engine has a .venv of its own.
ENGINES = {
    "flower": (
        [PEER, "starlette>=1.3.1,<1.4"],
        PEER_NEEDS
        + ["alembic<2", "click<9", "grpcio-health-checking<2", "pathspec<2", "prompt-toolkit<4", "ray==2.55.1"]
        + ["sqlalchemy[asyncio]<3", "typer", "uv<0.14", "uvicorn[standard]<0.50"],
        ["tests/integrations/test_flower.py", "tests/integrations/test_flower_nodes.py"]
        + ["tests/integrations/test_flower_bytes.py", "tests/integrations/test_flower_named.py"]
        + ["tests/integrations/test_flower_simulation.py"]
        + ["tests/faults/test_flower_deployment.py"],
    ),
    "nvflare": ([], ["nvflare==2.9.0"], ["tests/integrations/test_nvflare.py"]),
}
ENGINE_TESTS_NEED = ["pydantic", "pytest", "pytest-xdist", "scikit-learn", "tenseal"]
ROOT = os.path.dirname(os.path.abspath(__file__))
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
STAMP = os.path.join(VENV, "securefl-stamp.json")  # there when, and only when, the last installation finished

# task: (extras, what `python` is given, whether it runs here or in the caller's directory)
TASKS = {
    "run": ({"all"}, ["-m", "securefl", "run"], False),
    "demo": ({"all"}, ["-m", "securefl", "demo"], False),
    "test": ({"all", "test"}, ["-m", "pytest"], True),
    "check": ({"all", "test"}, [], True),
    "vectors": ({"all"}, ["protocols/generate.py"], True),
    "bench": ({"all"}, ["-m", "securefl", "bench"], False),
    "integrations": (set(), [], True),
}
CHECKS = {
    "ruff check": ["-m", "ruff", "check", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "."],
    "mypy": ["-m", "mypy", "securefl"],
    "import-linter": [".venv/bin/lint-imports"],  # there is no `python -m importlinter`
}


def say(text):
    sys.stderr.write("dev.py: " + text + "\n")
    sys.stderr.flush()


def too_old(version):
    """The one sentence for a Python that is too old; None for one that is not."""
    if tuple(version[:2]) >= MINIMUM:
        return None
    return "securefl needs Python {}.{} or newer, and this is {}.{}.".format(*(MINIMUM + tuple(version[:2])))


def read(name):
    with open(os.path.join(ROOT, name), "rb") as file:
        return file.read()


def wanted_state():
    """What an installation depends on: the place it was made for, and the files that decide what is installed."""
    parts = [hashlib.sha256(read(name)).digest() for name in ("pyproject.toml", "constraints.txt")]
    place = "{}.{} {}".format(sys.version_info[0], sys.version_info[1], ROOT)
    return {"place": place, "digest": hashlib.sha256(b"".join(parts)).hexdigest()}


def read_stamp():
    """The state of the last finished installation; empty when there is none."""
    try:
        with open(STAMP) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


def write_stamp(stamp):
    with open(STAMP + ".new", "w") as file:
        json.dump(stamp, file)
    os.replace(STAMP + ".new", STAMP)


def plan(stamp, state, extras):
    """``(anew, extras)``: whether .venv is to be made anew, and the extras to install; none when all are there."""
    anew = stamp.get("place") != state["place"]
    have = set() if anew or stamp["digest"] != state["digest"] else set(stamp["extras"])
    return anew, set() if extras <= have else extras | have


def pip_install(arguments, python=None):
    """Pip's exit status, under the caller's pip settings less those that would install elsewhere."""
    env = {k: v for k, v in os.environ.items() if k not in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT")}
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    command = [
        python or PYTHON,
        "-m",
        "pip",
        "install",
        "-qq",
        "--no-input",
        "--no-warn-conflicts",
        "-c",
        "constraints.txt",
    ]
    return subprocess.call(command + arguments, cwd=ROOT, env=env)


def make_venv(place=None):
    """An empty .venv; what is there is unfinished, or made for another Python or place."""
    place = place or VENV
    say("making {} with Python {}.{}".format(os.path.basename(place), *sys.version_info[:2]))
    # Debian packages ensurepip apart from Python; asking first keeps its absence to one sentence.
    able = subprocess.call([sys.executable, "-c", "import ensurepip, venv"], stderr=subprocess.DEVNULL) == 0
    if not able or subprocess.call([sys.executable, "-m", "venv", "--clear", place]):
        sys.exit("dev.py: this Python cannot make .venv; on Debian and Ubuntu: sudo apt install python3-venv")


def install(extras):
    """Bring .venv to a state that has ``extras``. An interrupted installation leaves no stamp and is made anew."""
    import fcntl

    with open(os.path.abspath(__file__)) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another dev.py may be installing: then there is nothing left to do
        stamp, state = read_stamp() if os.path.exists(PYTHON) else {}, wanted_state()
        anew, todo = plan(stamp, state, extras)
        if not todo:
            return
        if stamp:
            os.remove(STAMP)
        if anew:
            make_venv()
        target = ".[{}]".format(",".join(sorted(todo)))
        say("installing securefl{} into .venv; the first time takes a minute or more".format(target[1:]))
        if pip_install(["-e", target]):
            sys.exit("dev.py: pip could not install securefl{}; its reason stands above".format(target[1:]))
        write_stamp(dict(state, extras=sorted(todo), peer=False))


def install_peers():
    """Install the peers that benchmarks measure against; a failure is a note, never an error.

    pip cannot resolve flwr beside our pins: it caps typer, rich, pycryptodome and packaging below them and asks for a
    certifi newer than some mirrors carry. It runs with them all the same. So it goes in without its dependencies, and
    then those that its secure aggregation imports go in under flwr's own bounds; the rest of them we have. crypten asks
    for a package "sklearn" that refuses to be installed, and for one of tables of contents; it computes without both.
    """
    stamp = read_stamp()
    if stamp["peer"]:
        return
    say("installing {} into .venv, to measure against".format(", ".join(peer for peer, _ in PEERS)))
    os.remove(STAMP)
    failed = [peer for peer, needs in PEERS if pip_install(["--no-deps", peer]) or pip_install(needs)]
    for peer in failed:
        say("note: {} could not be installed (pip's reason stands above); measuring without it".format(peer))
    write_stamp(dict(stamp, peer=not failed))


def engine_state(engine):
    """What an engine's environment depends on."""
    wanted = json.dumps([ENGINES[engine][:2], ENGINE_TESTS_NEED])
    return dict(wanted_state(), engine=hashlib.sha256(wanted.encode("ascii")).hexdigest())


def install_engine(engine):
    """Bring .venv-ENGINE up to date and return its python; ``None`` when pip could not."""
    place = "{}-{}".format(VENV, engine)
    stamp, python = os.path.join(place, "securefl-stamp.json"), os.path.join(place, "bin", "python")
    try:
        with open(stamp) as file:
            if json.load(file) == engine_state(engine) and os.path.exists(python):
                return python
    except (OSError, ValueError):
        pass
    make_venv(place)
    say("installing {} into {}; the first time takes minutes".format(engine, os.path.basename(place)))
    alone, beside, _ = ENGINES[engine]
    steps = [["-e", "."] + ENGINE_TESTS_NEED] + ([["--no-deps"] + alone] if alone else []) + [beside]
    if any(pip_install(step, python) for step in steps):
        say("pip could not install {}; its reason stands above".format(engine))
        return None
    with open(stamp, "w") as file:
        json.dump(engine_state(engine), file)
    return python


def integrations(arguments):
    """Run the tests of every engine, slow ones too; 1 when an engine could not be installed or a test failed."""
    failed = []
    for engine in sorted(ENGINES):
        python = install_engine(engine)
        if python is None:
            failed.append(engine + " (not installed, so not tested)")
            continue
        say("integrations: " + engine)
        command = [python, "-m", "pytest", "-m", "slow or not slow", "-n", "0"] + ENGINES[engine][2] + arguments
        if subprocess.call(command):
            failed.append(engine)
    say("integrations: failed: " + ", ".join(failed) if failed else "integrations: all {} passed".format(len(ENGINES)))
    return 1 if failed else 0


def check():
    """Run every check, in order; 1 when any failed."""
    failed = []
    for name, arguments in CHECKS.items():
        say("check: " + name)
        if subprocess.call([PYTHON] + arguments):
            failed.append(name)
    say("check: failed: " + ", ".join(failed) if failed else "check: all {} passed".format(len(CHECKS)))
    return 1 if failed else 0


def main(argv):
    if too_old(sys.version_info):
        sys.exit(too_old(sys.version_info))
    task, arguments = (argv[0], argv[1:]) if argv else ("", [])
    if task not in TASKS or (task == "check" and arguments):
        asked = task in ("-h", "--help")
        (sys.stdout if asked else sys.stderr).write(__doc__)
        return 0 if asked else 2
    extras, command, here = TASKS[task]
    if task == "integrations":  # these have environments of their own
        os.chdir(ROOT)
        return integrations(arguments)
    install(extras)
    if task == "bench" and "--peers" in arguments:
        arguments.remove("--peers")
        install_peers()
    if here:
        os.chdir(ROOT)
    if task == "check":
        return check()
    return os.execv(PYTHON, [PYTHON] + command + arguments)  # exit status and Ctrl-C are the task's own


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        say("interrupted")
        sys.exit(130)
