"""keras_mpt and PEFT side by side: `make bench` runs it all, `python -m benchmarks.PART` one part.

Importing this package pins the threads of every framework alike, before any of them is imported.
"""

from tools.threads import pin_threads

pin_threads()
