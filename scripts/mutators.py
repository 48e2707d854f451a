"""Make the mutants of a Python file: copies of it, each with one small change that a test should notice.

Nothing here runs a test: `mutants.py` does. Each change replaces one span of the source text, so that
the rest of the file keeps its lines. These places are left alone, because a changed one breaks no promise:
annotations, decorators, docstrings, log calls, the arguments of `raise`, `__repr__`, and numbers outside
functions (they are time-outs and sizes that may as well be a little larger).
"""

import ast
import re
from collections import namedtuple

#: One change. `function` is the qualified name of what holds it; `old` and `new` are the changed source
#: lines, joined; `start`, `end` (byte offsets) and `text` (bytes) say how to make it.
Mutant = namedtuple("Mutant", "path line function old new start end text")

COMPARISONS = {
    ast.Eq: ["!="],
    ast.NotEq: ["=="],
    ast.Lt: ["<=", ">="],
    ast.LtE: ["<", ">"],
    ast.Gt: [">=", "<="],
    ast.GtE: [">", "<"],
    ast.Is: ["is not"],
    ast.IsNot: ["is"],
    ast.In: ["not in"],
    ast.NotIn: ["in"],
}
ARITHMETIC = {ast.Add: (b"+", b"-"), ast.Sub: (b"-", b"+"), ast.Mult: (b"*", b"/")}
LOG_METHODS = {"debug", "info", "warning", "error", "critical", "exception", "log", "warn"}
UNTESTED_FUNCTIONS = {"__repr__", "__str__"}


def _is_log_call(node):
    function = node.func
    if not isinstance(function, ast.Attribute) or function.attr not in LOG_METHODS:
        return False
    owner = function.value
    name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
    return "log" in name.lower() or name == "warnings"


class _Finder(ast.NodeVisitor):
    def __init__(self, path, source):
        self.path, self.source = path, source
        self.lines = source.split(b"\n")
        self.starts = [0]
        for line in self.lines:
            self.starts.append(self.starts[-1] + len(line) + 1)
        self.names = []
        self.depth = 0  # of functions
        self.found = []

    # Positions and text

    def _start(self, node):
        return self.starts[node.lineno - 1] + node.col_offset

    def _end(self, node):
        return self.starts[node.end_lineno - 1] + node.end_col_offset

    def _add(self, start, end, text):
        first = self.source.count(b"\n", 0, start)
        last = self.source.count(b"\n", 0, end)
        begin, stop = self.starts[first], self.starts[last + 1] - 1
        old = self.source[begin:stop]
        new = self.source[begin:start] + text + self.source[end:stop]
        one_line = [b" ".join(each.split()).decode() for each in (old, new)]
        if one_line[0] != one_line[1]:
            name = ".".join(self.names) or "(module)"
            self.found.append(Mutant(self.path, first + 1, name, *one_line, start, end, text))

    def _replace(self, node, text):
        self._add(self._start(node), self._end(node), text.encode())

    def _replace_between(self, left, right, old, new):
        """Replace the operator `old` between two operands."""
        start, end = self._end(left), self._start(right)
        gap = re.sub(rb"#[^\n]*", lambda found: b" " * len(found.group()), self.source[start:end])
        found = re.search(old, gap)
        if found:
            self._add(start + found.start(), start + found.end(), new)

    # Scopes, and what is left alone

    def visit_FunctionDef(self, node):
        self._visit_defaults(node.args)
        if node.name in UNTESTED_FUNCTIONS:
            return
        self.names.append(node.name)
        self.depth += 1
        for each in node.body:
            self.visit(each)
        self.depth -= 1
        self.names.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def _visit_defaults(self, arguments):
        self.depth += 1
        for each in arguments.defaults + arguments.kw_defaults:
            if each is not None:
                self.visit(each)
        self.depth -= 1

    def visit_Lambda(self, node):
        self._visit_defaults(node.args)
        self.visit(node.body)

    def visit_ClassDef(self, node):
        self.names.append(node.name)
        for each in node.body:
            self.visit(each)
        self.names.pop()

    def visit_AnnAssign(self, node):
        if node.value is not None:
            self.visit(node.value)

    def visit_JoinedStr(self, node):
        pass

    def visit_Call(self, node):
        if not _is_log_call(node):
            self.generic_visit(node)

    # Statements

    def visit_Expr(self, node):
        value = node.value
        if isinstance(value, ast.Constant):
            return
        call = value.value if isinstance(value, ast.Await) else value
        if isinstance(call, ast.Call) and _is_log_call(call):
            return
        if self.depth and isinstance(call, ast.Call):
            self._replace(node, "pass")
        self.generic_visit(node)

    def visit_Assign(self, node):
        kept = (ast.Attribute, ast.Subscript)
        if self.depth and all(isinstance(target, kept) for target in node.targets):
            self._replace(node, "pass")
        self.generic_visit(node)

    def visit_AugAssign(self, node):
        self._replace(node, "pass")
        self.generic_visit(node)

    def visit_Delete(self, node):
        self._replace(node, "pass")

    def visit_Return(self, node):
        value = node.value
        if value is not None and not (isinstance(value, ast.Constant) and value.value is None):
            self._replace(node, "return None")
        self.generic_visit(node)

    def visit_Raise(self, node):
        self._replace(node, "pass")

    def visit_Continue(self, node):
        self._replace(node, "pass")

    def visit_Break(self, node):
        self._replace(node, "pass")

    def visit_ExceptHandler(self, node):
        if node.type is not None:
            self._replace(node.type, "()")  # it catches nothing
        for each in node.body:
            self.visit(each)

    def _visit_test(self, node, values):
        # `if TYPE_CHECKING` and `if __name__ == …` are not of the running program.
        if self.depth and not isinstance(node.test, ast.Constant):
            for value in values:
                self._replace(node.test, value)
        self.generic_visit(node)

    def visit_If(self, node):
        if self.depth:
            self._visit_test(node, ("True", "False"))

    def visit_IfExp(self, node):
        self._visit_test(node, ("True", "False"))

    def visit_While(self, node):
        self._visit_test(node, ("False",))

    # Expressions

    def visit_Compare(self, node):
        operands = [node.left] + node.comparators
        for left, operation, right in zip(operands, node.ops, node.comparators):
            for new in COMPARISONS[type(operation)]:
                self._replace_between(
                    left, right, rb"not\s+in|is\s+not|in|is|[=!<>]=|[<>]", new.encode()
                )
        self.generic_visit(node)

    def visit_BoolOp(self, node):
        old, new = (b"and", b"or") if isinstance(node.op, ast.And) else (b"or", b"and")
        for left, right in zip(node.values, node.values[1:]):
            self._replace_between(left, right, rb"\b%s\b" % old, new)
        self.generic_visit(node)

    def visit_UnaryOp(self, node):
        if isinstance(node.op, ast.Not):
            self._add(self._start(node), self._start(node) + len(b"not"), b"")
        self.generic_visit(node)

    def visit_BinOp(self, node):
        texts = (ast.JoinedStr, ast.List, ast.Tuple)
        is_text = any(
            isinstance(each, texts)
            or (isinstance(each, ast.Constant) and isinstance(each.value, (str, bytes)))
            for each in (node.left, node.right)
        )
        if type(node.op) in ARITHMETIC and not is_text:
            old, new = ARITHMETIC[type(node.op)]
            self._replace_between(node.left, node.right, re.escape(old), new)
        self.generic_visit(node)

    def visit_Constant(self, node):
        value = node.value
        if isinstance(value, bool):
            self._replace(node, str(not value))
        elif isinstance(value, (int, float)) and self.depth:
            self._replace(node, repr(value + 1))


def mutants_of(path, source):
    """Return the mutants of `source` (bytes), in the order of the text; `path` is kept in each."""
    finder = _Finder(path, source)
    finder.visit(ast.parse(source))
    return sorted(finder.found, key=lambda mutant: (mutant.start, mutant.end, mutant.text))


def apply(mutant, source):
    """Return `source` (bytes) with the change made."""
    return source[: mutant.start] + mutant.text + source[mutant.end :]
