"""One at a time on a backbone, and with it on all models that share its variables."""

from __future__ import annotations

import threading
import weakref

from keras_mpt.types import Backbone

# Beside the backbones, not on them: a lock can be neither copied nor saved.
_locks: weakref.WeakKeyDictionary[Backbone, threading.RLock] = weakref.WeakKeyDictionary()
_making = threading.Lock()


def lock_of(backbone: Backbone) -> threading.RLock:
    """A backbone's lock, which the thread that has it may take again.

    Args:
        backbone: a backbone.
    """
    with _making:
        return _locks.setdefault(backbone, threading.RLock())
