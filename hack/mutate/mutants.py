"""Generate mutants: copies of a module with one small change each.

The changes are mutmut's operators (`mutmut.mutation.mutators`), three of them narrowed, and four of our own. mutmut
itself changes the bodies of undecorated functions only; here the operators are applied to the whole module: constants,
fields of models, default arguments and tables hold most of the values that matter in this code base.
"""

import difflib
import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import libcst as cst
from libcst.metadata import CodeRange, MetadataWrapper, PositionProvider
from mutmut.mutation import mutators

UNTOUCHED_CALLS = frozenset(
    {"len", "isinstance", "issubclass", "cast", "TypeVar", "NewType", "get_logger", "assert_never"}
)
"""Calls whose arguments are not changed: a change fails immediately or has no effect at run time."""

LOGGERS = frozenset({"log", "_log", "logger", "_logger"})
"""Objects whose calls write logs; tests do not depend on log messages."""

PROSE = frozenset({"description", "help", "title", "epilog", "metavar"})
"""Keyword arguments that carry text for people; generated pages are compared by `make check`."""

UNSWAPPED_CALLS = frozenset({"max", "min", "frozenset", "set", "print", "gather"})
"""Calls in which the order of the arguments means nothing."""

Operator = Callable[..., Iterable[cst.CSTNode]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one file."""

    file: str
    """Path relative to the repository."""

    scope: str
    """Qualified name of the outermost function that holds the change; empty for code that runs on import."""

    ordinal: int
    """Which of the functions of that name: a property has a getter and a setter."""

    first_line: int
    last_line: int
    """Lines of the statement that is changed, in the original."""

    before: str
    after: str
    """The changed lines, without indentation."""

    place: str
    """Distinguishes equal changes of one scope: equal statements before this one, and the line within the statement."""

    source: str
    """The whole mutated module."""

    @property
    def id(self) -> str:
        """Short name, stable when the change moves to another line."""
        text = "\0".join((self.file, self.scope, str(self.ordinal), self.before, self.after, self.place))
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def diff(self, original: str) -> str:
        """The change as a unified diff."""
        lines = difflib.unified_diff(
            original.splitlines(keepends=True), self.source.splitlines(keepends=True), self.file, self.file, n=2
        )
        return "".join(lines)


@dataclass(frozen=True, slots=True)
class Site:
    """A node that an operator changes, with where it is."""

    statement: int
    scope: str
    ordinal: int
    first_line: int
    last_line: int
    node: cst.CSTNode
    replacement: cst.CSTNode


def _first_string(node: cst.BaseString) -> Iterator[cst.CSTNode]:
    """The first of mutmut's changes of a string; the others change its case."""
    if isinstance(node, cst.SimpleString) and node.value.strip("rbuRBU") not in {'""', "''"}:
        yield from list(mutators.operator_string(node))[:1]
    elif isinstance(node, cst.SimpleString):
        yield node.with_changes(value=node.value[:-1] + "XX" + node.value[-1])


def _formatted_string(node: cst.FormattedString) -> Iterator[cst.CSTNode]:
    """Changes the text of an f-string, which mutmut does not change."""
    for index, part in enumerate(node.parts):
        if isinstance(part, cst.FormattedStringText):
            changed = part.with_changes(value="XX" + part.value)
            yield node.with_changes(parts=[*node.parts[:index], changed, *node.parts[index + 1 :]])
            return


def _operand(node: cst.BooleanOperation) -> Iterator[cst.CSTNode]:
    """Keeps only one operand: finds operands that no test covers."""
    for operand in (node.left, node.right):
        yield operand.with_changes(lpar=[*operand.lpar, cst.LeftParen()], rpar=[*operand.rpar, cst.RightParen()])


def _argument(node: cst.Call) -> Iterator[cst.CSTNode]:
    """Replaces a positional argument by None and drops a keyword argument.

    mutmut does both with every argument; dropping a positional one and passing None by keyword fail at the first call.
    """
    for index, argument in enumerate(node.args):
        if argument.keyword or argument.star == "**":
            yield node.with_changes(args=[*node.args[:index], *node.args[index + 1 :]])
        elif not argument.star and _last_name(argument.value) != "None":
            changed = argument.with_changes(value=cst.Name("None"))
            yield node.with_changes(args=[*node.args[:index], changed, *node.args[index + 1 :]])


def _swap_operator(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """mutmut's exchange of operators; `and` and `or` are left to `_operand`, which implies it."""
    if not isinstance(node, cst.BooleanOperation):
        yield from mutators.operator_swap_op(node)


def _swap_arguments(node: cst.Call) -> Iterator[cst.CSTNode]:
    """Exchanges two neighboring positional arguments."""
    if _last_name(node.func) in UNSWAPPED_CALLS:
        return
    for index in range(len(node.args) - 1):
        left, right = node.args[index], node.args[index + 1]
        if left.keyword or right.keyword or left.star or right.star or left.value.deep_equals(right.value):
            continue
        swapped = [left.with_changes(value=right.value), right.with_changes(value=left.value)]
        yield node.with_changes(args=[*node.args[:index], *swapped, *node.args[index + 2 :]])


def _operators() -> Sequence[tuple[type, Operator]]:
    replaced = {mutators.operator_string, mutators.operator_arg_removal, mutators.operator_swap_op}
    unchanged = [(kind, operator) for kind, operator in mutators.mutation_operators if operator not in replaced]
    ours: list[tuple[type, Operator]] = [
        (cst.BaseString, _first_string),
        (cst.FormattedString, _formatted_string),
        (cst.BooleanOperation, _operand),
        (cst.CSTNode, _swap_operator),
        (cst.Call, _argument),
        (cst.Call, _swap_arguments),
    ]
    return [*unchanged, *ours]


OPERATORS = _operators()


def _last_name(node: cst.CSTNode) -> str:
    if isinstance(node, cst.Attribute):
        return str(node.attr.value)
    return str(node.value) if isinstance(node, cst.Name) else ""


def _is_log_call(node: cst.Call) -> bool:
    function = node.func
    return isinstance(function, cst.Attribute) and _last_name(function.value) in LOGGERS


def _is_type_checking(node: cst.CSTNode) -> bool:
    return isinstance(node, cst.If) and _last_name(node.test) == "TYPE_CHECKING"


def _is_left_alone(node: cst.CSTNode) -> bool:
    """Reports whether nothing below the node is changed."""
    match node:
        case cst.Import() | cst.ImportFrom() | cst.Decorator() | cst.Assert() | cst.TypeAlias():
            return True
        case cst.Expr(value=cst.SimpleString() | cst.ConcatenatedString()):
            return True  # a docstring, of a module, a function or an attribute
        case cst.Call():
            return _is_log_call(node) or _last_name(node.func) in UNTOUCHED_CALLS
        case cst.Arg(keyword=cst.Name(value=name)):
            return name in PROSE
        case cst.Assign(targets=[cst.AssignTarget(target=cst.Name(value=name))]):
            return name.startswith("__") or name in LOGGERS
        case _:
            return _is_type_checking(node)


class _Walk:
    """Collects the sites of one module."""

    def __init__(self, module: cst.Module) -> None:
        wrapper = MetadataWrapper(module, unsafe_skip_copy=True)
        self._positions = wrapper.resolve(PositionProvider)
        self._seen: dict[str, int] = {}
        self.sites: list[Site] = []
        for index, statement in enumerate(module.body):
            self._statement = index
            self._visit(statement, "", 0, self._range(statement), in_function=False)

    def _range(self, node: cst.CSTNode) -> tuple[int, int]:
        position: CodeRange = self._positions[node]
        return position.start.line, position.end.line

    def _visit(self, node: cst.CSTNode, scope: str, ordinal: int, lines: tuple[int, int], *, in_function: bool) -> None:
        if _is_left_alone(node):
            return
        if isinstance(node, cst.Annotation):
            self._visit_annotation(node, scope, ordinal, lines, in_function=in_function)
            return
        if isinstance(node, cst.SimpleStatementLine | cst.BaseCompoundStatement):
            first, last = self._range(node)
            body = getattr(node, "body", None)
            if isinstance(node, cst.BaseCompoundStatement) and isinstance(body, cst.IndentedBlock):
                last = max(first, self._range(body)[0] - 1)
            lines = (first, last)
        self._change(node, scope if in_function else "", ordinal, lines)
        if isinstance(node, cst.FunctionDef | cst.ClassDef) and not in_function:
            name = f"{scope}.{node.name.value}" if scope else node.name.value
            is_function = isinstance(node, cst.FunctionDef)
            ordinal = self._seen.get(name, 0)
            self._seen[name] = ordinal + 1
            for child in node.children:
                if child is node.body:
                    self._visit(child, name, ordinal, lines, in_function=is_function)
                else:
                    self._visit(child, scope, 0, lines, in_function=False)
            return
        if isinstance(node, cst.ConcatenatedString):
            self._visit(node.left, scope, ordinal, lines, in_function=in_function)
            return
        for child in node.children:
            self._visit(child, scope, ordinal, lines, in_function=in_function)

    def _visit_annotation(
        self, node: cst.CSTNode, scope: str, ordinal: int, lines: tuple[int, int], *, in_function: bool
    ) -> None:
        """Calls inside `Annotated[...]` carry limits; the rest of an annotation is for type checkers."""
        for child in node.children:
            if isinstance(child, cst.Call):
                self._visit(child, scope, ordinal, lines, in_function=in_function)
            else:
                self._visit_annotation(child, scope, ordinal, lines, in_function=in_function)

    def _change(self, node: cst.CSTNode, scope: str, ordinal: int, lines: tuple[int, int]) -> None:
        for kind, operator in OPERATORS:
            if isinstance(node, kind):
                for replacement in operator(node):
                    self.sites.append(Site(self._statement, scope, ordinal, *lines, node, replacement))


def _changed_lines(old: str, new: str) -> tuple[str, str, int]:
    """The lines that differ, without indentation, joined by spaces, and the index of the first."""
    before, after = old.splitlines(), new.splitlines()
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    texts = (" ".join(line.strip() for line in lines[start : len(lines) - end]) for lines in (before, after))
    return next(texts), next(texts), start


class Module:
    """One file and the sites where it can be changed; mutants are rendered on demand."""

    def __init__(self, root: Path, file: Path) -> None:
        self.name = str(file.relative_to(root))
        self.text = file.read_text()
        self._lines = self.text.splitlines()
        self._module = cst.parse_module(self.text)
        self._statements = [self._module.code_for_node(statement) for statement in self._module.body]
        self._head = self.text[: self.text.index(self._statements[0])] if self._statements else ""
        before = accumulate((text.count("\n") for text in self._statements), initial=self._head.count("\n"))
        self._starts: list[int] = list(before)
        self.sites = _Walk(self._module).sites
        self._equal = self._count_equal_statements()

    def render(self, site: Site) -> Mutant | None:
        """The mutant of that site; None when it does not compile."""
        at = site.statement
        changed = self._module.code_for_node(self._module.body[at].deep_replace(site.node, site.replacement))
        source = self._head + "".join([*self._statements[:at], changed, *self._statements[at + 1 :]])
        if changed == self._statements[at] or not _compiles(source):
            return None
        before, after, offset = _changed_lines(self._statements[at], changed)
        lines = (site.first_line, site.last_line)
        place = f"{self._equal[site.scope, *lines]}.{offset - self._offset(site)}"
        return Mutant(self.name, site.scope, site.ordinal, *lines, before, after, place, source)

    def _offset(self, site: Site) -> int:
        """First line of the changed statement, counted from the top-level statement that holds it."""
        return site.first_line - 1 - self._starts[site.statement]

    def _count_equal_statements(self) -> dict[tuple[str, int, int], int]:
        """For each statement that can be changed, how many equal ones stand before it in its scope."""
        counts: dict[tuple[str, int, int], int] = {}
        seen: Counter[tuple[str, str]] = Counter()
        for scope, first, last in sorted({(site.scope, site.first_line, site.last_line) for site in self.sites}):
            text = "\n".join(self._lines[first - 1 : last]).strip()
            counts[scope, first, last] = seen[scope, text]
            seen[scope, text] += 1
        return counts


def _compiles(source: str) -> bool:
    try:
        compile(source, "mutant", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True
