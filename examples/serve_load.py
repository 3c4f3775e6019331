"""The load test of `serve.py`: mixed batches beside a batch per task, in turn, on loopback.

Three servers, each with the same adapters, the same largest batch and the same wait:

- mixed: one bank, and a batch is whatever waits;
- own: one process as well, but a batch is of one task;
- workers: a process, a queue and a copy of the backbone for each task, up to eight tasks.

Users ask one question after another, each of a task drawn anew. The servers are loaded in turn, in
slices, so that what else the machine does meets them alike; those that wait are stopped, since
LitServe's workers look for requests a thousand times a second. Linux only: memory is read from
/proc. It is what processes have for themselves; libraries' files come to 500 MiB more, which all
share.
"""

import contextlib
import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import serve

SLICES = {"mixed": 60, "own": 15, "workers": 15}  # Seconds of a minute's load.
MOST_WORKERS = 8
WORDS = ["the", "film", "goal", "vote", "match", "actor", "was", "is", "never", "good", "bad"]


def make_adapters(folder, preset, count):
    """Adapters that were never trained: what they answer does not change how long it takes."""
    import keras_mpt

    backbone, preprocessor = serve.load_base(preset)
    for i in range(count):
        config = keras_mpt.PromptTuningConfig(
            task_type="SEQ_CLS",
            num_virtual_tokens=serve.NUM_VIRTUAL_TOKENS,
            label_names=["no", "yes"],
            seed=i,
        )
        model = keras_mpt.prompt_tune(
            backbone, config, num_classes=2, pooling="mean", preprocessor=preprocessor
        )
        model.save_adapter(Path(folder) / f"task{i}")


class Server:
    """A server in processes of its own, as a command line starts it."""

    def __init__(self, batches, adapters, preset, port):
        self.batches, self.port = batches, port
        command = [sys.executable, serve.__file__, "--adapters", adapters, "--batches", batches]
        command += ["--port", str(port), *(["--preset", preset] if preset else [])]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.latencies, self.seconds, self.memory = [], 0.0, []

    def wait_until_ready(self):
        """Until all of its workers answer."""
        while self.process.poll() is None:
            try:
                if self.ask(self.connection(), "GET", "/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.5)
        sys.exit(f"the server of {self.batches!r} did not start")

    def connection(self):
        """For one user; it stays open."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    @staticmethod
    def ask(connection, method, path, body=None):
        """An answer's status and text."""
        given = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, json.dumps(body) if body else None, given)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def processes(self):
        """Its processes' ids, its own first."""
        found = [self.process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                found += map(int, children.read_text().split())
        return found

    def signal(self, number):
        """Sends a signal to all of its processes."""
        for pid in self.processes():
            os.kill(pid, number)

    def resident(self):
        """MiB of memory that its processes take together, but for files."""
        total = 0
        for pid in self.processes():
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
        return total / 1024

    def load(self, seconds, tasks, users):
        """Asks for a while; what was measured is kept."""
        self.signal(signal.SIGCONT)
        began = time.monotonic()
        threads = [
            threading.Thread(target=self._user, args=(began + seconds, tasks)) for _ in range(users)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.seconds += time.monotonic() - began
        self.memory.append(self.resident())
        self.signal(signal.SIGSTOP)

    def _user(self, end, tasks):
        connection, rng = self.connection(), random.Random()
        while time.monotonic() < end:
            task = rng.choice(tasks)
            text = " ".join(rng.choices(WORDS, k=rng.randint(4, 24)))
            path = f"/predict/{task}" if self.batches == "workers" else "/predict"
            began = time.monotonic()
            found = self.ask(connection, "POST", path, {"text": text, "adapter": task})
            if found[0] != 200:
                print(f"{self.batches}: {found}", file=sys.stderr)
            self.latencies.append(time.monotonic() - began)

    def stop(self):
        """Ends it with all of its processes."""
        self.signal(signal.SIGCONT)
        processes = self.processes()
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    @property
    def rate(self):
        """Requests per second."""
        return len(self.latencies) / self.seconds

    @property
    def percentiles(self):
        """The 50th and the 95th of the seconds that an answer takes."""
        cuts = statistics.quantiles(self.latencies, n=20)
        return cuts[9], cuts[18]


def main(arguments):
    """Loads each server in turn and prints a table."""
    with tempfile.TemporaryDirectory() as folder:
        serve.apart(make_adapters, folder, arguments.preset, arguments.tasks)
        tasks = sorted(os.listdir(folder))
        kinds = [k for k in SLICES if k != "workers" or len(tasks) <= MOST_WORKERS]
        servers = []
        try:
            for i, kind in enumerate(kinds):
                servers.append(Server(kind, folder, arguments.preset, arguments.port + i))
                servers[-1].wait_until_ready()
                servers[-1].load(1, tasks, arguments.users)  # The first answers are not counted.
                servers[-1].latencies, servers[-1].seconds = [], 0.0
            rounds = max(1, round(arguments.minutes))
            for _ in range(rounds):
                for server in servers:
                    share = arguments.minutes / rounds * SLICES[server.batches]
                    server.load(share, tasks, arguments.users)
                print(f"{servers[0].memory[-1]:.0f} MiB in the mixed server", flush=True)
            print_table(servers, arguments)
        finally:
            for server in servers:
                server.stop()


def print_table(servers, arguments):
    """A line per server, and its ratios to the first."""
    print(f"\n{arguments.tasks} tasks, {arguments.users} users, {os.environ['KERAS_BACKEND']}")
    print("| batches | requests per second | p50, ms | p95, ms | MiB: first, last, most |")
    print("|---|---|---|---|---|")
    for server in servers:
        half, most = server.percentiles
        memory = (server.memory[0], server.memory[-1], max(server.memory))
        print(
            f"| {server.batches} | {server.rate:.1f} | {half * 1e3:.0f} | {most * 1e3:.0f} | "
            f"{', '.join(f'{m:.0f}' for m in memory)} |"
        )
    mixed = servers[0]
    for server in servers[1:]:
        print(
            f"mixed over {server.batches}: {mixed.rate / server.rate:.2f} times the requests per "
            f"second, {mixed.percentiles[1] / server.percentiles[1]:.2f} times the p95, "
            f"{mixed.memory[-1] / server.memory[-1]:.2f} times the memory"
        )
