"""What is promised of files and threads, put to the test for minutes: `python -m tests.soak`."""
