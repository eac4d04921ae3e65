"""The folder that one build works in, and the lock that lets one build run at a time."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images import Say, cache_dir

LOCK_POLL_S = 1.0


@contextmanager
def work_folder(say: Say) -> Iterator[Path]:
    """An empty folder `work-<pid>-<random>` below the cache, removed at the end; one build at a time has one.

    Folders of killed builds are removed first. They are those of dead processes: whoever has the lock is the
    only build there is, so every other folder is one, even where its process number is in use again.
    """
    cache = cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with _lock(cache / "build.lock", say):
        for stale in cache.glob("work-*"):
            shutil.rmtree(stale, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=f"work-{os.getpid()}-", dir=cache))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _lock(path: Path, say: Say) -> Iterator[None]:
    """Holds the file lock `path`; the kernel lets go of it when this process ends, however it does."""
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                say("waiting for another build on this machine")
                time.sleep(LOCK_POLL_S)
        yield
