"""Several devices, and several processes, train what one device does.

Each way is trained in fresh processes, as a device's number is fixed once its backend has begun;
which ways there are depends on the backend (`run.WAYS`).
"""

import json
import os
import socket
import subprocess
import sys

import keras
import pytest

from tests.scaling import jobs
from tests.scaling.run import KINDS, OFTEN, WAYS

BACKEND = keras.backend.backend()
IN_PROCESSES = ("processes", "wrapped", "workers")


def free_ports(count):
    """Ports that nobody listens at."""
    with_all = [socket.socket() for _ in range(count)]
    try:
        for one in with_all:
            one.bind(("127.0.0.1", 0))
        return [str(one.getsockname()[1]) for one in with_all]
    finally:
        for one in with_all:
            one.close()


def train(way, folder):
    """Runs a way's processes to their end."""
    ports = free_ports(2)
    count = 2 if way in IN_PROCESSES else 1
    command = [sys.executable, "-m", "tests.scaling.run", way, str(folder)]
    environment = {**os.environ, "KERAS_BACKEND": BACKEND}
    pipe = subprocess.PIPE
    running = [
        subprocess.Popen(
            [*command, str(index), *ports], env=environment, stdout=pipe, stderr=pipe, text=True
        )
        for index in range(count)
    ]
    try:
        said = [process.communicate(timeout=300)[1] for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode == 0 for process in running), "\n".join(t[-3000:] for t in said)


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What one device comes to, by kind of model."""
    folder = tmp_path_factory.mktemp("one")
    train("one", folder)
    return {kind: jobs.read(folder / f"one-{kind}.npz") for kind in KINDS}


@pytest.mark.parametrize("way", WAYS[BACKEND])
def test_a_way_trains_what_one_device_does(way, request, tmp_path):
    if way != OFTEN[BACKEND] and not request.config.getoption("--all-ways"):
        pytest.skip("`make test-all` (--all-ways) trains in this way too")
    one = request.getfixturevalue("one")
    train(way, tmp_path)
    for kind in WAYS[BACKEND][way]:
        found = jobs.read(tmp_path / f"{way}-{kind}.npz")
        if way in ("processes", "wrapped"):
            wanted = jobs.of_mix(one[kind], with_logs=way == "processes")
        else:
            wanted = one[kind]
        jobs.assert_same(found, wanted)
    if way == "processes":
        check_files_and_errors(tmp_path, WAYS[BACKEND][way])


def check_files_and_errors(folder, kinds):
    """One process wrote, and both refused wrong parts in the same words."""
    for kind in kinds:
        assert (folder / kind / "adapter" / "adapter_config.json").exists()
        assert (folder / kind / "adapter 0").exists()
        assert not (folder / kind / "adapter 1").exists()
    errors = [json.loads((folder / f"errors {index}.json").read_text()) for index in range(2)]
    wanted = [
        "`x` should be the same mix in all processes, but for its shard. Received: x with seed=0 "
        "in process 0 and seed=1 in process 1",
        "`shard` should be (index, 2) in these 2 processes, with the indexes [0, 1]. Received: "
        "shard=[(0, 2), (0, 2)] in processes 0 to 1",
    ]
    assert errors == [wanted, wanted]
