"""What of Ray's environment is set and when, and the way of news from workers to the driver."""

import dataclasses
import http.server
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import ray
from shared_runs import Extracted

from urgency_ray import cli, cluster
from urgency_ray.cluster import Node, Relay, count_places
from urgency_ray.cluster import address as address_module
from urgency_ray.cluster.address import check_address
from urgency_ray.cluster.connection import _without_notices
from urgency_ray.config import RayConfig
from urgency_ray.errors import RequestError, WorkError

# What a user may have, all of it in the way.
HOSTILE = {"RAY_TRAIN_V2_ENABLED": "0", "RAY_AIR_NEW_OUTPUT": "1"}


def run_python(code: Any, *arguments: Any, **environment: Any) -> Any:
    """The lines that a child process prints, which must end well."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    child = subprocess.run(command, env=ours | environment, capture_output=True, text=True, timeout=240, check=False)
    assert child.returncode == 0, child.stderr
    return child.stdout.splitlines()


def test_importing_the_module_changes_no_environment_and_imports_no_ray() -> None:
    code = """
import os, sys
before = dict(os.environ)
import urgency_ray.cluster
print(dict(os.environ) == before, "ray" in sys.modules)
"""
    assert run_python(code, **HOSTILE) == ["True False"]


def test_what_is_needed_is_set_whatever_the_user_s_is_and_what_is_wished_only_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in cluster.WISHED:
        monkeypatch.delenv(name, raising=False)
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAY_BACKEND_LOG_LEVEL", "info")
    cluster.set_environment()
    assert os.environ["RAY_TRAIN_V2_ENABLED"] == "1"
    assert os.environ["RAY_AIR_NEW_OUTPUT"] == "0"
    assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "0.2"
    assert os.environ["RAY_BACKEND_LOG_LEVEL"] == "info"


def test_a_machine_that_is_too_busy_for_ray_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**_: Any) -> None:
        raise Exception("The current node timed out during startup. This could happen because the GCS has become overloaded.")

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", start)
    with pytest.raises(WorkError, match="Ray did not start within half a minute: this machine is too busy"):
        cluster.connect(RayConfig())


def test_the_command_line_sets_it_before_the_command_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TRAIN_V2_ENABLED", "0")
    seen = []
    watched = dataclasses.replace(cli.COMMANDS["train"], run=lambda *_: seen.append(os.environ["RAY_TRAIN_V2_ENABLED"]))
    monkeypatch.setitem(cli.COMMANDS, "train", watched)
    assert cli.main(["train", "--run-dir", "none"]) == 0
    assert seen == ["1"]


def test_an_older_ray_train_that_has_been_imported_is_refused() -> None:
    code = """
import ray.train
from urgency_ray import cluster
from urgency_ray.errors import RequestError, WorkError
try:
    cluster.set_environment()
except RequestError as error:
    print(error)
"""
    (line,) = run_python(code, **HOSTILE)
    assert line.startswith("RAY_TRAIN_V2_ENABLED: is 0 in the environment")


def test_processes_of_a_private_cluster_inherit_what_connect_sets(ray_session: None) -> None:
    names = [*cluster.NEEDED, "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"]
    found = ray.get(ray.remote(num_cpus=0)(lambda: [os.environ.get(name) for name in names]).remote())
    assert found == ["1", "0", "0.2"]


@pytest.mark.slow
def test_after_connect_a_training_reports_at_once_and_a_search_prints_nothing_of_its_own(tmp_path: Path) -> None:
    code = """
import os, sys
from pathlib import Path
from urgency_ray import cluster
from urgency_ray.config import RayConfig
cluster.connect(RayConfig(address="local", num_cpus=1))
import ray.train, ray.tune
from urgency_ray.training.trainer import Trainer

class Controller(ray.train.UserCallback):
    def __init__(self, file):
        self.file = file

    def after_report(self, run_context, metrics, checkpoint):
        self.file.write_text(os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"])

def work():
    ray.train.report({"epoch": 1})
    return os.environ["RAY_TRAIN_V2_ENABLED"]

folder = Path(sys.argv[1])
trained = ray.train.RunConfig(storage_path=sys.argv[1], callbacks=[Controller(folder / "interval")])
scaling = ray.train.ScalingConfig(num_workers=1, resources_per_worker={"CPU": 0.5})
print(Trainer(work, scaling_config=scaling, run_config=trained).fit().return_value)
print("a search")
searched = ray.tune.RunConfig(storage_path=sys.argv[1], verbose=0)
ray.tune.Tuner(ray.tune.with_resources(lambda config: {"score": 1.0}, {"cpu": 0.5}), run_config=searched).fit()
print((folder / "interval").read_text())
"""
    assert run_python(code, tmp_path, **HOSTILE)[-3:] == ["1", "a search", "0.2"]


@pytest.mark.parametrize(
    ("nodes", "request_", "places"),
    [
        ([Node(2), Node(3)], (1,), 5),
        ([Node(3), Node(3)], (2,), 2),  # the CPU that each has left is none
        ([Node(4, 1), Node(4)], (1, 1), 1),
        ([Node(4, 2)], (1, 0.4), 4),  # two shares of 0.4 a card
        ([Node(2, 2)], (1, 0.4), 2),
        ([Node(8, 3)], (1, 2), 1),
    ],
)
def test_places_are_counted_node_by_node_and_card_by_card(nodes: Any, request_: tuple[Any, ...], places: int) -> None:
    assert count_places(nodes, *request_) == places


def is_gone(relay: Any) -> Any:
    """Whether the mailbox's process is ended for good within a while: Ray ends it when the order has come there."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            ray.get(relay.mailbox.take.remote(), timeout=60)
        except ray.exceptions.RayActorError:
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://head:10001", "a Ray client's address, and the work needs a driver inside the cluster: submit a job"),
        (
            "http://head:8265",
            "takes HOST:PORT of the cluster's head, whose port is 6379 as a rule; where jobs are submitted to",
        ),
        ("head", "must be HOST:PORT of the cluster's head"),
        ("head:ray", "must be HOST:PORT of the cluster's head"),
    ],
)
def test_an_address_of_another_kind_is_one_line(
    address: str,
    said: str,
    extracted: Extracted,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    for options, name in (([], "RAY_ADDRESS"), (["--ray.address", address], "ray.address")):
        assert cli.main(["train", "--run-dir", extracted[0], *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {name} {address}: {said}")


def test_a_dashboard_s_port_is_no_cluster_s_head() -> None:
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as dashboard:
        threading.Thread(target=dashboard.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{dashboard.server_port}"
        with pytest.raises(
            RequestError, match=rf"^ray.address {address}: what answers there is no Ray cluster's head; it takes"
        ):
            check_address(address, "ray.address")
        dashboard.shutdown()


def test_a_port_where_nobody_answers_or_all_are_silent_is_an_error_of_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(address_module, "ANSWER_SEC", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ConnectionError, match=rf"^ray.address {address}: no Ray cluster answers there within 1 s$"):
            check_address(address, "ray.address")
    with pytest.raises(ConnectionError, match=rf"^ray.address {address}: no Ray cluster answers there \(Connection refused\)$"):
        check_address(address, "ray.address")


class Receiver:
    """A handler that keeps what it gets, and raises at the messages that it is told to."""

    def __init__(self, *bad: Any) -> None:
        self.bad = bad
        self.found: list[Any] = []
        self.called = threading.Event()

    def __call__(self, messages: Any) -> None:
        self.found += messages
        self.called.set()
        for message in messages:
            if message in self.bad:
                raise ValueError(message)

    def wait(self) -> None:
        """Until it has been called since the last time."""
        assert self.called.wait(60)
        self.called.clear()


def test_a_relay_hands_on_what_workers_send(ray_session: None) -> None:
    receiver = Receiver()
    with Relay(receiver, 0.05) as send:
        work: Any = ray.remote(num_cpus=0)(lambda number: send(number))  # noqa: PLW0108 (Ray takes functions only)
        ray.get([work.remote(number) for number in range(3)])
        while len(receiver.found) < 3:
            receiver.wait()
        send("last")
    assert sorted(receiver.found[:-1]) == [0, 1, 2] and receiver.found[-1] == "last"


def test_a_process_that_ends_after_a_message_can_wait_for_its_arrival(ray_session: None) -> None:
    receiver = Receiver()

    class Ending:
        def say(self, send: Any, message: str) -> None:
            send(message, wait_sec=60)
            os._exit(1)

    actor: Any = ray.remote(num_cpus=0)(Ending).remote()
    with Relay(receiver, 0.05) as send:
        with pytest.raises(ray.exceptions.RayActorError):
            ray.get(actor.say.remote(send, "last words"))
        receiver.wait()
    assert receiver.found == ["last words"]


def test_what_a_handler_raises_reaches_the_driver_and_later_messages_the_handler(ray_session: None) -> None:
    receiver = Receiver("bad", "worse")
    relay = Relay(receiver, 0.05)
    with pytest.raises(ValueError, match=r"^bad$"), relay as send:  # noqa: PT012
        for message in ("bad", "worse", "good"):
            send(message)
            receiver.wait()
    assert receiver.found == ["bad", "worse", "good"]
    assert not relay.thread.is_alive()
    assert is_gone(relay)


def test_what_the_block_raises_comes_first_and_has_the_handler_s_in_a_note(ray_session: None) -> None:
    receiver = Receiver("bad")
    relay = Relay(receiver, 0.05)
    with pytest.raises(KeyError) as caught, relay as send:  # noqa: PT012
        send("bad")
        receiver.wait()
        raise KeyError("block")
    assert caught.value.args == ("block",)
    assert caught.value.__notes__ == ["What takes the workers' messages failed, too: ValueError('bad')"]
    assert is_gone(relay)


def test_a_mailbox_that_is_lost_for_good_is_named_and_ends_nothing(ray_session: None, caplog: pytest.LogCaptureFixture) -> None:
    relay = Relay(Receiver(), 0.05)
    with caplog.at_level(logging.WARNING, "urgency_ray"), relay as send:
        ray.kill(relay.mailbox)
        relay.thread.join(60)
        assert not relay.thread.is_alive()
        send("nobody reads it")
    assert caplog.messages == ["warning: what the workers report is lost from here on, with the process that collects it"]


def test_a_mailbox_whose_process_is_lost_starts_again(ray_session: None, caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver()
    relay = Relay(receiver, 0.05)
    with caplog.at_level(logging.WARNING, "urgency_ray"), relay as send:
        send("before")
        receiver.wait()
        ray.kill(relay.mailbox, no_restart=False)
        deadline = time.monotonic() + 60
        # What is sent before the new process is there may be lost with the old one.
        while len(receiver.found) < 2 and time.monotonic() < deadline:
            send("after")
            time.sleep(0.2)
    assert receiver.found[:2] == ["before", "after"]
    assert caplog.messages == []


def test_what_ray_s_core_says_of_itself_is_held_back_and_nothing_else(capfd: pytest.CaptureFixture[str]) -> None:
    with _without_notices():
        os.write(2, b"[2026 I 1 1] logging.cc:303: Set ray log level from environment variable RAY_BACKEND_LOG_LEVEL to 3\n")
        os.write(2, "한국어, and what matters\n".encode())
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == "한국어, and what matters\nafter\n"


def test_a_cluster_starts_without_a_word() -> None:
    code = "from urgency_ray import cluster; from urgency_ray.config import RayConfig; cluster.connect(RayConfig(num_cpus=1))"
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "TUNE_"))}
    child = subprocess.run([sys.executable, "-c", code], env=ours, capture_output=True, text=True, timeout=240, check=True)
    assert (child.stdout, child.stderr) == ("", "")
