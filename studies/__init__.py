"""What is learned, and how well, on real tasks. How fast is for `benchmarks/` to say.

Importing this package pins the threads of every framework alike, before any of them is imported.
"""

from tools.threads import pin_threads

pin_threads()
