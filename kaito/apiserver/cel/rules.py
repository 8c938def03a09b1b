"""CEL rules of custom resources (`x-kubernetes-validations`): compiled once, evaluated as the real server does.

cel-python evaluates; this module adds what Kubernetes does: which fields rules see, transition rules (`oldSelf`) only
where an old value can be matched, `messageExpression`, `reason`, `fieldPath`, and no errors for what did not change.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import celpy
from celpy.celparser import CELParseError
from celpy.evaluation import CELEvalError

from kaito.apiserver.cel.functions import FUNCTIONS
from kaito.apiserver.cel.values import Optional, to_cel
from kaito.apiserver.errors import OMITTED, FieldError, duplicate, forbidden_field, invalid_value, required
from kaito.apiserver.schema.structural import Schema
from kaito.apiserver.schema.validation import item_key
from kaito.apiserver.wire import Json, Object, encode, is_list, is_object

if TYPE_CHECKING:
    from collections.abc import Iterator

_MISSING = object()
MAX_CACHED_RESULTS = 10_000
"""Maximum number of cached results per schema node; beyond it, the cache is cleared."""
Question: TypeAlias = tuple[str, bytes, bytes]
_TOKEN = re.compile(
    r"""(?P<string>[rRbB]{0,2}(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"))"""
    r"""|(?P<select>\.\?\s*(?P<name>[A-Za-z_]\w*))|(?P<index>\[\?)""",
    re.DOTALL,
)


class RuleSyntaxError(ValueError):
    """A rule is not CEL."""


@dataclass(frozen=True, slots=True)
class Program:
    """One compiled expression."""

    source: str
    runner: celpy.Runner
    transition: bool
    """Whether it reads `oldSelf`."""
    fields: frozenset[str] | None
    """Fields of `self` and `oldSelf` that it reads; None when it may read all of them."""

    def evaluate(self, names: Object) -> Json:
        """Returns the value of the expression; raises `CELEvalError`."""
        return self.runner.evaluate(names)


def _desugar(source: str) -> str:
    """Rewrites optional selection, which cel-python's grammar lacks: `a.?b` becomes `a.optionalField("b")`."""
    text, depth_closers = "", list[int]()
    position = depth = 0
    while position < len(source):
        match = _TOKEN.match(source, position)
        if match is not None:
            if match["name"]:
                text += f'.optionalField("{match["name"]}")'
            elif match["index"]:
                text += ".optionalIndex("
                depth_closers.append(depth)
                depth += 1
            else:
                text += match[0]
            position = match.end()
            continue
        letter = source[position]
        if letter == "[":
            depth += 1
        elif letter == "]":
            depth -= 1
            if depth_closers and depth_closers[-1] == depth:
                depth_closers.pop()
                letter = ")"
        text += letter
        position += 1
    return text


@lru_cache(maxsize=4096)
def compile_rule(source: str) -> Program:
    """Returns the compiled form of an expression; raises `RuleSyntaxError`."""
    environment: Json = celpy.Environment()  # cel-python is only partly typed; its types stay inside this module
    try:
        tree = environment.compile(_desugar(source.strip()))
    except CELParseError as error:
        raise RuleSyntaxError(str(error).strip() or "syntax error") from error
    bare = _TOKEN.sub(lambda match: "" if match["string"] else match[0], source)
    transition = re.search(r"\boldSelf\b", bare) is not None
    return Program(source, environment.program(tree, functions=FUNCTIONS), transition, _fields_read(bare))


def _fields_read(source: str) -> frozenset[str] | None:
    """Returns the fields that an expression selects from `self` and `oldSelf`, None when it uses them otherwise."""
    found: set[str] = set()
    for match in re.finditer(r"\b(?:self|oldSelf)\b(?:\s*\.\??\s*([A-Za-z_]\w*)(\s*\()?)?", source):
        if match[1] is None or match[2] is not None:
            return None
        found.add(match[1])
    return frozenset(found)


def _question(program: Program, value: Json, old: Json) -> Question:
    """Returns the cache key of an evaluation: the rule and the parts of the values that it reads, as bytes."""
    return program.source, _read(program, value), b"" if old is _MISSING else _read(program, old)


def _read(program: Program, value: Json) -> bytes:
    if program.fields is None or not is_object(value):
        return encode(value)
    return encode([[name, _seen(name, value[name])] for name in sorted(program.fields) if name in value])


def _seen(name: str, value: Json) -> Json:
    """Returns the part of a field that rules can read: of metadata only the names, which status updates never
    change."""
    if name == "metadata" and is_object(value) and "uid" in value:
        return [value.get("name"), value.get("generateName")]
    return value


def rule_errors(data: Object, schema: Schema, old: Object | None) -> list[FieldError]:
    """Returns an error for each rule that an object violates."""
    if not _has_rules(schema):
        return []
    before: Json = _MISSING if old is None else old
    return list(_check(data, before, schema, "", root=True))


def _has_rules(schema: Schema) -> bool:
    if schema.has_rules is None:
        children = list(schema.declared().values())
        children += [child for child in (schema.additional, schema.items) if child is not None]
        schema.has_rules = bool(schema.rules) or any(list(map(_has_rules, children)))
    return schema.has_rules


def _check(value: Json, old: Json, schema: Schema, path: str, *, root: bool = False) -> Iterator[FieldError]:
    if not _has_rules(schema) or value is None:
        return
    if schema.rules:
        yield from _check_rules(value, old, schema, path, root=root)
    if is_object(value):
        declared = schema.declared()
        for name, item in value.items():
            child = schema.child(name)
            if child is None or (root and name == "metadata"):
                continue
            here = f"{path}.{name}" if path else name
            if name not in declared:
                here = f"{path}[{name}]"
            before = old.get(name, _MISSING) if is_object(old) else _MISSING
            yield from _check(item, before, child, here)
    elif is_list(value) and schema.items is not None:
        entries: list[Json] = value
        matches: Object = {}
        if schema.list_type == "map" and is_list(old):
            olds: list[Json] = old
            matches = {item_key(item, schema): item for item in olds}
        for index, item in enumerate(entries):
            before = matches.get(item_key(item, schema), _MISSING) if matches else _MISSING
            yield from _check(item, before, schema.items, f"{path}[{index}]")


def _check_rules(value: Json, old: Json, schema: Schema, path: str, *, root: bool) -> Iterator[FieldError]:
    current = previous = None
    converted = False
    unchanged = old is not _MISSING and old == value
    for rule in schema.rules:
        try:
            program = compile_rule(str(rule["rule"]))
        except RuleSyntaxError as error:
            yield invalid_value(path or "<nil>", schema.type, f"rule compile error: {error}")
            continue
        with_old = program.transition or bool(rule.get("optionalOldSelf"))
        question = _question(program, value, old if with_old else _MISSING)
        if question in schema.passed:
            continue
        if not converted:
            current = to_cel(value, schema, root=root)
            previous = None if old is _MISSING or old is None else to_cel(old, schema, root=root)
            converted = True
        names: Object = {"self": current}
        if rule.get("optionalOldSelf"):
            names["oldSelf"] = Optional.none() if previous is None else Optional(previous)
        elif program.transition:
            if previous is None:
                continue
            names["oldSelf"] = previous
        broken = _broken(program, rule, names, value, schema, path)
        if broken is None:
            _remember(schema, question)
        elif program.transition or not unchanged:
            yield broken


def _remember(schema: Schema, question: Question) -> None:
    """Cache that a rule holds: rules are pure, and most writes repeat an evaluation (every status update does)."""
    if len(schema.passed) >= MAX_CACHED_RESULTS:
        schema.passed.clear()
    schema.passed.add(question)


def _broken(program: Program, rule: Object, names: Object, value: Json, schema: Schema, path: str) -> FieldError | None:
    where = path or "<nil>"
    try:
        if program.evaluate(names):
            return None
    except CELEvalError as error:
        message = str(rule.get("message") or rule["rule"]).strip()
        return invalid_value(where, schema.type, f"{evaluation_reason(error)} evaluating rule: {message}")
    if rule.get("fieldPath"):
        where = f"{path}{rule['fieldPath']}".lstrip(".")
    shown = OMITTED if schema.type in {"object", "array"} else value
    return _error(where, shown, _message(rule, names), str(rule.get("reason") or ""))


def evaluation_reason(error: CELEvalError) -> str:
    """Returns cel-go's wording of an evaluation error."""
    first = error.args[0] if error.args else ""
    match = re.search(r"no such (?:member|key)[^:]*: ?'?(\w+)|KeyError\(.*?'(\w+)'", f"{first} {error.args[1:]}")
    if match is not None:
        return f"no such key: {match.group(1) or match.group(2)}"
    return str(first) or "evaluation failed"


def _message(rule: Object, names: Object) -> str:
    expression = rule.get("messageExpression")
    if expression:
        try:
            text = str(compile_rule(str(expression)).evaluate(names)).strip()
        except (CELEvalError, RuleSyntaxError):
            text = ""
        if text and "\n" not in text:
            return text
    return str(rule.get("message") or f"failed rule: {str(rule['rule']).strip()}").strip()


def _error(where: str, shown: Json, message: str, reason: str) -> FieldError:
    match reason:
        case "FieldValueForbidden":
            return forbidden_field(where, message)
        case "FieldValueRequired":
            return required(where, message)
        case "FieldValueDuplicate":
            return duplicate(where, shown)
        case _:
            return invalid_value(where, shown, message)
