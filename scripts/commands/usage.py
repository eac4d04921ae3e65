"""`scripts/COMMAND --help` before there is an environment: what the command's own source says of its options.

Run by any Python 3, without this project's packages: `python3 scripts/commands/usage.py COMMAND`.
"""

import argparse
import ast
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

SHARED = {"add_show_secrets": "shown_keys"}
"""Functions that add options, and the modules that have them."""

SHOWN = ("nargs", "action", "metavar", "help", "choices", "dest", "required")


def parser_of(command: str) -> argparse.ArgumentParser:
    """A parser with the command's options, good for its help alone."""
    tree = _tree(command)
    parser = argparse.ArgumentParser(prog=f"scripts/{command}", description=ast.get_docstring(tree))
    _add(parser, tree)
    return parser


def _add(parser: argparse.ArgumentParser, tree: ast.AST) -> None:
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in sorted(calls, key=lambda node: node.lineno):
        if isinstance(call.func, ast.Name) and call.func.id in SHARED:
            _add(parser, _tree(SHARED[call.func.id]))
        elif isinstance(call.func, ast.Attribute) and call.func.attr == "add_argument":
            given = {word.arg: _literal(word.value) for word in call.keywords if word.arg in SHOWN}
            words: dict[str, Any] = {str(name): value for name, value in given.items() if value is not None}
            # The default is a constant of the project's own.
            words["help"] = str(words.get("help", "")).replace("%(default)s", "see README.md")
            parser.add_argument(*map(ast.literal_eval, call.args), **words)


def _tree(module: str) -> ast.Module:
    return ast.parse((HERE / f"{module.replace('-', '_')}.py").read_text(encoding="utf-8"))


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


if __name__ == "__main__":
    parser_of(sys.argv[1]).print_help()
