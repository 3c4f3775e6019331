"""`python -m benchmarks.transfer`."""

import os
import sys

# PyTorch compiles nothing per model, and is what PEFT runs on. Keras fixes its backend at import.
os.environ["KERAS_BACKEND"] = "torch"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from benchmarks.transfer.command import main  # noqa: E402

sys.exit(main())
