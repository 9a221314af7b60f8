"""The NVFLARE job in NVFLARE's own simulator, and what its client-side pieces refuse."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nvflare", reason="nvflare is not installed: python3 dev.py integrations")

from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.filter import ContentBlockedException
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.abstract.fl_model import FLModel

from securefl.errors import ConfigurationError, DecodeError
from securefl.integrations.coordinator import Coordinator
from securefl.integrations.nvflare import MaskedFedAvg, MaskFilter, ModelFilter, ProtocolExecutor
from securefl.integrations.nvflare.carriage import FRAMES, error_of, frames_in
from securefl.integrations.peers import HELPER, make_identity
from securefl.integrations.roll import NO_NAMES, Names
from securefl.integrations.settings import Settings
from securefl.integrations.tensors import arrays_hash, layout_of
from securefl.integrations.vector import VectorCoder
from securefl.primitives.identity import Identity

ROOT = Path(__file__).resolve().parents[2]
SERVER_IDENTITY = Identity(bytes([88]) * 32)
MODEL = {"w": np.zeros((4, 3), dtype=np.float32)}


@pytest.mark.slow
@pytest.mark.parametrize("chosen", [(), ("--protect", "ckks"), ("--protect", "ckks", "--key-model", "key_holder")])
def test_the_job_in_the_simulator(chosen: tuple[str, ...], tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples/nvflare_job/masked_job.py"), str(tmp_path / "workspace"), *chosen]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    rounds = re.findall(r"^ROUND (\d): survivors (.*?); total weight (\d+)", ran.stdout, flags=re.MULTILINE)
    everyone = "site-1, site-2, site-3, site-4"
    assert rounds == [("1", everyone, "200"), ("2", "site-1, site-3, site-4", "160"), ("3", everyone, "200")], (
        ran.stdout[-4000:] + ran.stderr[-4000:]
    )


class Site:
    """One client's pieces around a context of its own."""

    def __init__(self, folder: Path, policy: dict[str, Any] | None = None, role: str = "client") -> None:
        self.context = FLContext()
        folder.mkdir(parents=True, exist_ok=True)
        workspace = type("Workspace", (), {"get_site_config_dir": lambda _: str(folder)})()
        engine = type("Engine", (), {"get_workspace": lambda _: workspace, "fire_event": lambda *_: None})()
        self.context.get_engine = lambda: engine
        self.executor = ProtocolExecutor(policy, role)
        self.before, self.behind = ModelFilter(policy), MaskFilter()

    def task(self, data: dict[str, Any], **meta: Any) -> Shareable:
        dxo = DXO(DataKind.WEIGHT_DIFF, data=data or {"0": np.empty(0, np.uint8)}, meta=meta)
        return self.executor.execute("securefl", dxo.to_shareable(), self.context, None)


def coordinator(names: Names = NO_NAMES, **changes: Any) -> Coordinator:
    settings = Settings(**{"suite": "x25519", "threshold": 2, "clip_range": 1.0, "max_weight": 16, **changes})
    invitation = settings.invitation(
        "train",
        b"session",
        1,
        3,
        weight_key=str(MetaKey.NUM_STEPS_CURRENT_ROUND),
        layout=layout_of(MODEL),
        model_hash=arrays_hash(MODEL),
        arguments_hash=bytes(32),
        names=names,
    )
    return Coordinator(invitation, SERVER_IDENTITY)


def invite(site: Site, me: int = 1, **changes: Any) -> Shareable:
    return site.task({}, invitation=coordinator(**changes).invitation.encode(), me=me)


def hello(site: Site) -> tuple[bytes, str]:
    public, role = frames_in(_data(site.task({}, hello=True)))
    return bytes(public), bytes(role).decode()


@pytest.mark.parametrize(
    ("protect", "key_model"),
    [("masked", "key_holder"), ("ckks", "threshold"), ("ckks", "key_holder"), ("shared", "key_holder")],
)
def test_a_session_of_three_sites_in_memory(protect: str, key_model: str, tmp_path: Path) -> None:
    pytest.importorskip("tenseal")
    trusting = {"allow_unpinned": True}
    sites = {i: Site(tmp_path / str(i), trusting) for i in (1, 2, 3)}
    helped = protect == "shared" or (protect == "ckks" and key_model == "key_holder")
    if helped:
        sites[HELPER] = Site(tmp_path / "helper", trusting, "helper")
    keys = {party: hello(site) for party, site in sites.items()}
    assert [role for _, role in keys.values()] == ["client"] * 3 + ["helper"] * helped
    names = Names(tuple(keys[i][0] for i in (1, 2, 3)), keys[HELPER][0] if helped else b"", SERVER_IDENTITY.public)
    server = coordinator(NO_NAMES if protect == "masked" else names, protect=protect, key_model=key_model)
    deliveries = server.begin()
    while not server.over:
        for party, frames in deliveries.items():
            meta: dict[str, Any] = {}
            site = sites[party]
            model = server.takes_model(party)
            if server.first_contact(party):
                meta = {"invitation": server.invitation.encode(), "me": int(party)}
            if model:
                given = DXO(DataKind.WEIGHTS, data=dict(MODEL), meta={FRAMES: [bytes(f) for f in frames], **meta})
                filtered = site.before.process(given.to_shareable(), site.context)
                assert FRAMES not in str(filtered)
                assert "invitation" not in str(filtered)
                grown = {"w": MODEL["w"] + np.float32(0.25 * party)}
                meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: party, "private": "of this client"}
                result = DXO(DataKind.WEIGHTS, data=grown, meta=meta).to_shareable()
                answer = site.behind.process(result, site.context)
                assert "private" not in str(answer)
            else:
                answer = site.task({str(at): np.frombuffer(f, np.uint8) for at, f in enumerate(frames)}, **meta)
            server.receive(party, frames_in(_data(answer)))
        deliveries = server.close()
    means = server.coder.decode(server.result)
    assert means.total_weight == 6
    assert np.abs(means.update["w"] - 0.25 * (1 + 4 + 9) / 6).max() < 1e-3


def test_lists_of_peers_lie_in_the_sites_folder(tmp_path: Path) -> None:
    sites = {i: Site(tmp_path / str(i)) for i in (1, 2, 3)}
    publics = [make_identity(tmp_path / str(i) / "securefl-identity").public for i in sites]
    assert [hello(site)[0] for site in sites.values()] == publics
    listed = ", ".join(f'"{public.hex()}"' for public in publics[:2])
    for i in (1, 2):
        (tmp_path / str(i) / "securefl-peers.toml").write_text(f"clients = [{listed}]\n")
    names = Names(tuple(publics), b"", SERVER_IDENTITY.public)
    answer = invite(sites[1], names=names, protect="ckks", key_model="threshold")
    assert "client 3 is invited under a public key" in str(error_of(answer))
    (tmp_path / "1" / "securefl-identity").chmod(0o644)
    assert "chmod 600" in str(error_of(invite(sites[1], names=names, protect="ckks", key_model="threshold")))


def test_a_helper_is_no_client(tmp_path: Path) -> None:
    helper = Site(tmp_path, {"allow_unpinned": True}, "helper")
    assert "helper and no client" in str(error_of(invite(helper)))
    task = DXO(DataKind.WEIGHTS, data=dict(MODEL), meta={FRAMES: []}).to_shareable()
    with pytest.raises(ContentBlockedException):
        helper.before.process(task, helper.context)
    with pytest.raises(ConfigurationError, match="role"):
        ProtocolExecutor(role="judge")


def _data(shareable: Shareable) -> Any:
    return from_shareable(shareable).data


def test_a_training_task_without_a_session_is_blocked_on_both_sides(tmp_path: Path) -> None:
    site = Site(tmp_path)
    task = DXO(DataKind.WEIGHTS, data=dict(MODEL)).to_shareable()
    with pytest.raises(ContentBlockedException, match="does not take part"):
        site.before.process(task, site.context)
    result = DXO(DataKind.WEIGHTS, data=dict(MODEL), meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 1}).to_shareable()
    answer = site.behind.process(result, site.context)
    assert answer.get_return_code() != ReturnCode.OK
    assert "DXO" not in answer


def test_another_model_is_blocked(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert invite(site).get_return_code() == ReturnCode.OK
    other = {"w": MODEL["w"] + np.float32(1e-6)}
    task = DXO(DataKind.WEIGHTS, data=other, meta={FRAMES: []}).to_shareable()
    with pytest.raises(ContentBlockedException, match="AuthenticationError"):
        site.before.process(task, site.context)


def in_training(folder: Path, **changes: Any) -> tuple[Site, dict[str, Any]]:
    """A site whose vector is due, and the model that its application was given."""
    sites = {i: Site(folder / str(i)) for i in (1, 2, 3)}
    server = coordinator(**changes)
    deliveries = server.begin()
    while not server.due:
        for party, frames in deliveries.items():
            meta = {"invitation": server.invitation.encode(), "me": int(party)} if server.first_contact(party) else {}
            data = {str(at): np.frombuffer(f, np.uint8) for at, f in enumerate(frames)}
            server.receive(party, frames_in(_data(sites[party].task(data, **meta))))
        deliveries = server.close()
    given = {name: value.copy() for name, value in MODEL.items()}
    task = DXO(DataKind.WEIGHTS, data=given, meta={FRAMES: [bytes(f) for f in deliveries[1]]}).to_shareable()
    return sites[1], from_shareable(sites[1].before.process(task, sites[1].context)).data


def answer_to(site: Site, data: Any, kind: str = DataKind.WEIGHTS, **meta: Any) -> Shareable:
    result = DXO(kind, data=data, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: 1, **meta}).to_shareable()
    return site.behind.process(result, site.context)


def test_an_application_that_trains_in_place_has_an_update(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, given = in_training(tmp_path)
    seen = []
    encode = VectorCoder.encode
    monkeypatch.setattr(
        VectorCoder, "encode", lambda self, update, *rest: (seen.append(update), encode(self, update, *rest))[1]
    )
    given["w"] += np.float32(0.25)
    assert answer_to(site, given).get_return_code() == ReturnCode.OK
    assert (seen[0]["w"] == np.float32(0.25)).all()


@pytest.mark.parametrize(
    ("data", "kind", "says"),
    [
        ({"w": np.ones(1, np.float32)}, DataKind.WEIGHT_DIFF, "shape"),
        ({"w": np.ones((5, 3), np.float32)}, DataKind.WEIGHT_DIFF, "shape"),
        ({"v": np.ones((4, 3), np.float32)}, DataKind.WEIGHT_DIFF, "'v'"),
        ({"w": np.full((4, 3), "x")}, DataKind.WEIGHT_DIFF, "no numbers"),
        ({"w": np.ones((5, 3), np.float32)}, DataKind.WEIGHTS, "shape"),
        ({"w": [["x"]]}, DataKind.WEIGHTS, "the tensor 'w' is of <U1"),
        ({"loss": 1.0}, DataKind.METRICS, "weights or their difference"),
    ],
)
def test_a_result_that_is_no_update_is_refused_by_name(data: Any, kind: str, says: str, tmp_path: Path) -> None:
    site, _ = in_training(tmp_path)
    answer = answer_to(site, data, kind)
    assert re.match(f"InvalidInputError: .*{says}", str(error_of(answer)))
    assert "does not take part" in str(error_of(answer_to(site, dict(MODEL))))  # the session is over


def test_what_is_no_message_at_all_is_refused_by_name(tmp_path: Path) -> None:
    site, _ = in_training(tmp_path / "result")
    assert str(error_of(site.behind.process(Shareable(), site.context))).startswith("InvalidInputError")
    site, _ = in_training(tmp_path / "metrics")
    answer = answer_to(site, dict(MODEL), **{MetaKey.INITIAL_METRICS: [1.0]})
    assert str(error_of(answer)).startswith("InvalidInputError")
    site = Site(tmp_path / "task")
    assert str(error_of(site.executor.execute("securefl", Shareable(), site.context, None))).startswith("DecodeError")
    with pytest.raises(ContentBlockedException, match="DecodeError"):
        site.before.process(Shareable(), site.context)
    assert invite(site).get_return_code() == ReturnCode.OK
    objects = DXO(DataKind.WEIGHTS, data={"w": np.array([None])}, meta={FRAMES: []}).to_shareable()
    with pytest.raises(ContentBlockedException, match="Error"):
        site.before.process(objects, site.context)


def test_a_mistyped_floor_is_refused_when_the_job_is_made() -> None:
    for piece in (ProtocolExecutor, ModelFilter):
        with pytest.raises(ConfigurationError, match="minimum_cleints is no setting of a policy"):
            piece({"minimum_cleints": 4})
        with pytest.raises(ConfigurationError, match="minimum_clients"):
            piece({"minimum_clients": 1})


def test_floors_of_the_job_and_of_the_site(tmp_path: Path) -> None:
    assert "unprotected" in str(error_of(invite(Site(tmp_path), protect="plain")))
    assert "3 clients are invited" in str(error_of(invite(Site(tmp_path, {"minimum_clients": 4}))))
    (tmp_path / "securefl-policy.toml").write_text("minimum_threshold = 3\n")
    assert "a threshold of 2" in str(error_of(invite(Site(tmp_path))))
    assert error_of(invite(Site(tmp_path), threshold=3)) is None


def test_a_sum_is_not_repeated(tmp_path: Path) -> None:
    site = Site(tmp_path)
    assert error_of(invite(site)) is None
    assert "answered already" in str(error_of(invite(site)))


def test_frames_are_arrays_of_bytes() -> None:
    for wrong in (None, {"1": np.empty(1, np.uint8)}, {"0": np.empty(1, np.int8)}, {"0": b"x"}, {"0": np.ones((1, 1))}):
        with pytest.raises(DecodeError):
            frames_in(wrong)


def test_settings_that_cannot_work_are_refused_when_the_job_is_made() -> None:
    with pytest.raises(ConfigurationError):
        MaskedFedAvg(num_rounds=1, settings={"threshold": 1})


class InMemory(MaskedFedAvg):
    """The controller with sites in this process: every task goes through their filters and executors at once."""

    def __init__(self, folder: Path, clients: int, helper: bool = False, **named: Any) -> None:
        super().__init__(num_rounds=3, model={n: v.tolist() for n, v in MODEL.items()}, **named)
        trusting = {"allow_unpinned": True}
        self.sites = {f"site-{i}": Site(folder / str(i), trusting) for i in range(1, clients + 1)}
        if helper:
            self.sites["helper"] = Site(folder / "helper", trusting, "helper")
        self.fails: set[tuple[str, int]] = set()
        self.abort_signal = type("Signal", (), {"triggered": False})()

    def sample_clients(self, num_clients: int | None = None) -> list[str]:
        return list(self.sites)[:num_clients]

    def info(self, text: str) -> None: ...
    def save_model(self, model: FLModel) -> None: ...
    def cancel_all_tasks(self) -> None: ...

    def send_model(self, task_name: str, data: FLModel, targets: list[str], timeout: int, callback: Any) -> None:
        (name,) = targets
        site = self.sites[name]
        task = DXO(DataKind.WEIGHTS, data=dict(data.params), meta=dict(data.meta)).to_shareable()
        if task_name == "train":
            try:
                filtered = from_shareable(site.before.process(task, site.context))
            except ContentBlockedException as error:
                return self._tasks.refused(name, str(error))
            grown = {n: v + np.float32(0.1) * int(name[-1]) for n, v in filtered.data.items()}
            result = DXO(DataKind.WEIGHTS, data=grown, meta={MetaKey.NUM_STEPS_CURRENT_ROUND: int(name[-1])})
            answer = result.to_shareable()
            if (name, data.current_round) in self.fails:
                answer.set_return_code(ReturnCode.EXECUTION_EXCEPTION)
            answer = site.behind.process(answer, site.context)
        else:
            answer = site.executor.execute(task_name, task, site.context, None)
        if answer.get_return_code() != ReturnCode.OK:
            return self._tasks.refused(name, str(error_of(answer)))
        callback(FLModel(params=_data(answer)))
        return None


@pytest.mark.parametrize(
    ("settings", "helper"),
    [
        ({}, False),
        ({"identities": True}, False),
        ({"protect": "ckks", "key_model": "threshold"}, False),
        ({"protect": "ckks", "key_model": "key_holder"}, True),
        ({"protect": "shared"}, True),
        ({"compression": {"chain": ["rotated"], "levels": 63}, "max_weight": 8}, False),
    ],
)
def test_rounds_of_the_controller(settings: dict[str, Any], helper: bool, tmp_path: Path) -> None:
    pytest.importorskip("tenseal")
    shared = {"suite": "x25519", "threshold": 3, "max_weight": 16, "clip_range": 1.0}
    controller = InMemory(tmp_path, 5, helper, settings={**shared, **settings})
    controller.fails = {("site-2", 2)}
    controller.run()
    everyone = [f"site-{i}" for i in range(1, 6)]
    without = [name for name in everyone if name != "site-2"]
    assert [report["survivors"] for report in controller.reports] == [everyone, without, everyone]
    assert "answered with an error" in controller.reports[1]["dropped"]["site-2"]
    assert [report["failed"] for report in controller.reports] == [None] * 3
    assert [report["total_weight"] for report in controller.reports] == [15, 13, 15]


def test_noise_under_a_ledger(tmp_path: Path) -> None:
    budget = {"epsilon": 50.0, "clip_norm": 1.0, "population": 6, "minimum_survivors": 5}
    budget["ledger"] = str(tmp_path / "ledger.sqlite")
    settings = {"suite": "x25519", "threshold": 5, "max_weight": 16, "value_bits": 22}
    controller = InMemory(tmp_path, 6, settings=settings, privacy=budget)
    controller.run()
    assert [report["failed"] for report in controller.reports] == [None] * 3
    assert [report["total_weight"] for report in controller.reports] == [6, 6, 6]  # everybody counts alike
    assert (tmp_path / "ledger.sqlite").exists()
    for bad in ({"noise": "central"}, {"adaptive": True}):
        folder = tmp_path / next(iter(bad))
        other = InMemory(folder.with_suffix(".sites"), 6, settings=settings, privacy={**budget, **bad})
        with pytest.raises(ConfigurationError):
            other.run()
    with pytest.raises(ConfigurationError, match="without: ledger"):
        MaskedFedAvg(num_rounds=1, privacy={"epsilon": 1.0, "population": 5, "minimum_survivors": 5})


def test_no_helper_or_two_are_a_round_without_a_sum(tmp_path: Path) -> None:
    controller = InMemory(tmp_path, 4, settings={"protect": "shared", "suite": "x25519"})
    controller.run()
    assert all("0 sites are helpers" in report["failed"] for report in controller.reports)
