"""One-line faults in a Python source: what `scripts/test mutants` puts into the program, one at a time.

Kinds: condition, comparison, arithmetic, constant, mode (of a file), argument (a keyword, dropped), item (of a
list, tuple, set or dict, dropped), line (a statement, dropped), text (a line of a multi-line string, dropped, or a
word of it, changed: shell programs and configuration of HAProxy are such strings).
Left alone: docstrings, annotations, decorators, assertions, imports, wording for people, and tables of data, which
a test could only repeat.
"""
# ruff: noqa: N815 - methods with the names of ast's nodes

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

COMPARISONS: Mapping[type[ast.cmpop], tuple[str, str]] = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
}

OPERATORS: Mapping[type[ast.operator], tuple[str, str]] = {
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
}

WORDS: Sequence[tuple[str, str]] = (
    (r" && ", " || "),
    (r" \|\| ", " && "),
    (r" -eq ", " -ne "),
    (r" -lt ", " -le "),
    (r" -gt ", " -ge "),
    (r" -n (?=[\"$])", " -z "),
    (r" -z (?=[\"$])", " -n "),
    (r"\bif ! ", "if "),
    (r"\bumask 0?77\b", "umask 022"),
    (r"\bchmod (-R )?[ug+0]*600\b", "chmod 644"),
    (r"\bchmod (-R )?0?700\b", "chmod 755"),
)
"""What is changed in the text of strings: a pattern, and what stands in its place."""

TABLE = 8
"""Plain values in one list, tuple, set or dict; one with more is a table of data."""


@dataclass(frozen=True)
class Fault:
    """One edit of one file. begin, end: the bytes of the file that `new` replaces."""

    file: str
    line: int
    kind: str
    begin: int
    end: int
    new: str

    def put_into(self, source: str) -> str:
        """The source with the fault."""
        code = source.encode()
        return (code[: self.begin] + self.new.encode() + code[self.end :]).decode()

    def shown(self, source: str) -> tuple[str, str]:
        """The lines that change, before and after, each joined to one and cut to a length that can be read."""
        code, new = source.encode(), self.new.encode()
        begin = code.rfind(b"\n", 0, self.begin) + 1
        end = code.find(b"\n", max(begin, self.end - 1))
        end = max(self.end, end if end >= 0 else len(code))
        return _short(code[begin:end]), _short(code[begin : self.begin] + new + code[self.end : end])

    def is_one(self, source: str) -> bool:
        """Whether the source with it is still a program, and another one."""
        try:
            return ast.dump(ast.parse(self.put_into(source))) != ast.dump(ast.parse(source))
        except (SyntaxError, ValueError):
            return False


def faults_in(file: str, source: str) -> list[Fault]:
    """Every fault that may be put into a source, in the order of the file; a few of them are not valid Python."""
    finder = _Finder(file, source)
    finder.visit(ast.parse(source))
    return sorted(set(finder.found), key=lambda fault: (fault.begin, fault.end, fault.new))


def _short(code: bytes) -> str:
    flat = " ".join(code.decode().split())
    return (flat if len(flat) <= 150 else f"{flat[:147]}...") or "(nothing)"


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str, source: str) -> None:
        self._file, self._code = file, source.encode()
        self._starts = [0, *(match.end() for match in re.finditer(rb"\n", self._code))]
        self.found: list[Fault] = []

    # Places

    def _begin(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self._starts[node.lineno - 1] + node.col_offset

    def _end(self, node: ast.expr | ast.stmt | ast.keyword) -> int:
        return self._starts[(node.end_lineno or 0) - 1] + (node.end_col_offset or 0)

    def _text(self, node: ast.expr | ast.stmt | ast.keyword) -> str:
        return self._code[self._begin(node) : self._end(node)].decode()

    def _add(self, kind: str, begin: int, end: int, new: str) -> None:
        self.found.append(Fault(self._file, self._code.count(b"\n", 0, begin) + 1, kind, begin, end, new))

    def _replace(self, kind: str, node: ast.expr | ast.stmt, new: str) -> None:
        self._add(kind, self._begin(node), self._end(node), new)

    def _between(self, kind: str, left: ast.expr, right: ast.expr, old: str, new: str) -> None:
        """Another operator between two operands."""
        begin, end = self._end(left), self._begin(right)
        for match in re.finditer(r"\s+".join(map(re.escape, old.split())).encode(), self._code[begin:end]):
            self._add(kind, begin + match.start(), begin + match.end(), new)
            return

    def _drop_each(self, kind: str, items: Sequence[tuple[int, int]], keeps: int = 0, comma: str = "") -> None:
        """A sequence that lacks one item; items: their places. keeps: those before it, which are not dropped."""
        for number, (begin, end) in list(enumerate(items))[keeps:]:
            if number:
                self._add(kind, items[number - 1][1], end, comma)
            elif len(items) > 1:
                self._add(kind, begin, items[1][1], self._code[items[1][0] : items[1][1]].decode() + comma)
            else:
                self._add(kind, begin, end, "")

    # What is looked at, and what is left alone

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for part in (*node.args.defaults, *filter(None, node.args.kw_defaults), *node.body):
            self.visit(part)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for part in node.body:
            self.visit(part)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Call | ast.Await):
            self._replace("line", node, "pass")
        if not isinstance(node.value, ast.Constant):
            self.generic_visit(node)

    def _left_alone(self, node: ast.AST) -> None:
        """Nothing in it is looked at."""

    visit_Assert = visit_Import = visit_ImportFrom = _left_alone

    # Statements

    def _dropped(self, node: ast.stmt) -> None:
        self._replace("line", node, "pass")
        self.generic_visit(node)

    visit_AugAssign = visit_Raise = visit_Continue = visit_Break = visit_Delete = _dropped

    def visit_Return(self, node: ast.Return) -> None:
        if node.value is None:
            self._replace("line", node, "pass")
        else:
            self._several(node.value)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, ast.Attribute | ast.Subscript) for target in node.targets):
            self._replace("line", node, "pass")
        if any(isinstance(target, ast.Tuple) for target in node.targets):
            self._several(node.value)
        else:
            self.visit(node.value)

    def _several(self, node: ast.expr) -> None:
        """Values that go together: to leave one out would break every caller at once."""
        for each in node.elts if isinstance(node, ast.Tuple) else [node]:
            self.visit(each)

    # Conditions

    def _condition(self, test: ast.expr) -> None:
        """The other way round, where no other kind of fault in it is just that."""
        same = isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            same = not isinstance(test.ops[0], ast.Lt | ast.LtE | ast.Gt | ast.GtE)
        if not same:
            self._replace("condition", test, f"not ({self._text(test)})")

    def visit_If(self, node: ast.If | ast.While | ast.IfExp) -> None:
        if not (isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            self._condition(node.test)
            self.generic_visit(node)

    visit_While = visit_IfExp = visit_If

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self._condition(test)
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.Not):
            self._replace("condition", node, f"bool({self._text(node.operand)})")
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:], strict=False):
            self._between("condition", left, right, old, new)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = (node.left, *node.comparators)
        for left, operator, right in zip(operands, node.ops, node.comparators, strict=False):
            self._between("comparison", left, right, *COMPARISONS[type(operator)])
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        text = (ast.Constant, ast.JoinedStr, ast.List, ast.Tuple)
        numbers = [n for n in (node.left, node.right) if not isinstance(n, text) or _is_number(n)]
        if len(numbers) == 2 and type(node.op) in OPERATORS:
            self._between("arithmetic", node.left, node.right, *OPERATORS[type(node.op)])
        self.generic_visit(node)

    # Values

    def visit_Call(self, node: ast.Call) -> None:
        items: list[ast.expr | ast.keyword] = [*node.args, *node.keywords]
        places = [(self._begin(item), self._end(item)) for item in items]
        self._drop_each("argument", sorted(places), keeps=len(node.args))
        self.generic_visit(node)

    def visit_Subscript(self, node: ast.Subscript) -> None:
        self.visit(node.value)
        if not isinstance(node.slice, ast.Tuple):  # a type
            self.visit(node.slice)

    def visit_List(self, node: ast.List | ast.Tuple | ast.Set) -> None:
        if _is_table(node, node.elts):
            return
        if not isinstance(getattr(node, "ctx", None), ast.Store):
            comma = "," if isinstance(node, ast.Tuple) and len(node.elts) == 2 else ""
            self._drop_each("item", [(self._begin(item), self._end(item)) for item in node.elts], comma=comma)
        self.generic_visit(node)

    visit_Tuple = visit_Set = visit_List

    def visit_Dict(self, node: ast.Dict) -> None:
        if _is_table(node, node.values):
            return
        if all(node.keys):
            keys = [key for key in node.keys if key is not None]
            pairs = zip(keys, node.values, strict=True)
            self._drop_each("item", [(self._begin(key), self._end(value)) for key, value in pairs])
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        value, text = node.value, self._text(node)
        if isinstance(value, bool):
            self._replace("constant", node, str(not value))
        elif text.startswith("0o"):
            self._replace("mode", node, f"0o{value ^ 0o044:o}")  # type: ignore[operator]
        elif isinstance(value, int | float):
            self._replace("constant", node, str(value + 1))
        elif isinstance(value, str):
            if value and not re.search(r"\s", value):
                quote = re.sub(r"^[a-zA-Z]*", "", text)[0]
                self._replace("constant", node, f"{quote}mutated{quote}")
            self._in_text(node)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        self._in_text(node)
        if node.lineno == node.end_lineno:  # before 3.12, places in others are not those of the file
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    self.visit(part.value)

    def _in_text(self, node: ast.expr) -> None:
        base, text = self._begin(node), self._text(node)
        for pattern, new in WORDS:
            for match in re.finditer(pattern, text):
                begin = base + len(text[: match.start()].encode())
                self._add("text", begin, begin + len(match[0].encode()), new)
        if re.match(r"[a-zA-Z]*(\"\"\"|''')", text):
            for begin, line in self._inner_lines(base, text):
                self._add("text", begin, begin + len(line), "")

    @staticmethod
    def _inner_lines(base: int, text: str) -> Iterator[tuple[int, bytes]]:
        """The lines of a multi-line string but its first and last, without blank ones and comments."""
        lines = text.encode().splitlines(keepends=True)
        for number, line in enumerate(lines):
            if 0 < number < len(lines) - 1 and line.strip() and not line.lstrip().startswith(b"#"):
                yield base, line
            base += len(line)


def _is_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int | float)


def _is_table(node: ast.expr, items: Sequence[ast.expr]) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return len(items) > TABLE
