"""`python -m studies.transfer`."""

import os
import sys
import warnings

# PyTorch compiles nothing per model, and is what PEFT runs on. Keras fixes its backend at import.
os.environ["KERAS_BACKEND"] = "torch"
# Notices and progress bars of others would hide our own progress.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

warnings.simplefilter("ignore")

from studies.transfer.command import main  # noqa: E402

sys.exit(main())
