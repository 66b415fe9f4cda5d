"""Jinja for chat templates, which come with a download: what they may reach, how long they may take, how much they may make.

This is the border to templates. Two lists beside Jinja's own sandbox say what they reach. Before a template is compiled, `_Guard` puts a
check into its tree at whatever repeats and around whatever makes a value: it looks at the clock and weighs the value, so that nothing is
made of one that is too large. What a single step of C could make too large, or search for too long, is refused before: by the product of
what goes in.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, ItemsView, Iterator, KeysView, MappingView, Sequence, ValuesView
from functools import wraps
from itertools import islice
from typing import Any, TypeVar

from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError, TemplateRuntimeError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from mflamingo_cli.errors import ModelError
from mflamingo_cli.text import scrub

MAX_SOURCE = 40_000  # characters; the longest templates that are published have 20,000
MAX_NODES = 10_000  # of its tree, compiled in half a second; those have 3,000
MAX_SECONDS = 0.25  # of the thread; a template takes a thousandth, a hundredth for a whole context
MAX_WEIGHT = 2_000_000  # of a value: its characters, and ITEM for every item; a whole context of 131,072 tokens has 600,000
ITEM = 8
MAX_MADE = 32 * MAX_WEIGHT  # of all values of one rendering: what it may hold at once
MAX_PRODUCT = 16 * MAX_WEIGHT  # of what goes into a filter or a method
SHORT = 32  # factors that are not counted: separators, names of fields
MAX_BITS = 4096  # of an integer
MAX_INDENT = 64
MAX_SAID = 200  # characters of an error that a template words

# What chat templates use, and all of Jinja's filters whose result and time do not depend on a number; `tojson` is ours
FILTERS = frozenset({
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float", "groupby", "int", "items", "join", "last",
    "length", "list", "lower", "map", "max", "min", "reject", "rejectattr", "replace", "reverse", "safe", "select", "selectattr", "sort",
    "string", "title", "trim", "unique", "upper"
})  # fmt: skip
# Of texts, lists and dicts
METHODS = frozenset({
    "capitalize", "count", "endswith", "find", "get", "index", "isalnum", "isalpha", "isdecimal", "isdigit", "islower", "isnumeric",
    "isspace", "istitle", "isupper", "items", "join", "keys", "lower", "lstrip", "partition", "removeprefix", "removesuffix", "replace",
    "rfind", "rindex", "rpartition", "rsplit", "rstrip", "split", "splitlines", "startswith", "strip", "swapcase", "title", "upper",
    "values"
})  # fmt: skip
PLAIN = (str, int, float, complex, list, tuple, dict, range, MappingView)  # what has only METHODS
PASSED_ON = frozenset({"count", "d", "default", "first", "last", "length"})  # filters that make nothing
CURE = "correct it, or download the model again"
CHECK = "checked"  # the filter that `_Guard` puts around values
RAISED = (  # what Jinja and Python's operations raise at a template that is wrong, its compilation included
    TemplateError, ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, NameError, RuntimeError, SyntaxError,
    TypeError, ValueError,
)  # fmt: skip

Result = TypeVar("Result")


class _TooMuchError(TemplateRuntimeError):
    """More time or text than any prompt needs."""


class _Namespace(Namespace):
    """Jinja's, which does not write out what it holds: that may hold it in turn."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Guard(NodeTransformer):
    """Puts checks into the tree of a template. Raises _TooMuchError where it is too large to be compiled."""

    def __init__(self) -> None:
        self._left = MAX_NODES

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _TooMuchError(f"it has more than {MAX_NODES} syntax nodes")
        return super().visit(node, *args, **kwargs)

    def _body(self, node: Any) -> Any:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_checked(nodes.Const(None))))
        return node

    visit_Macro = visit_CallBlock = visit_Block = _body

    def visit_For(self, node: nodes.For) -> Any:
        if node.test is not None:
            node.test = _checked(node.test)
        return self._body(node)

    def _value(self, node: Any) -> Any:
        self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else _checked(node)

    visit_List = visit_Tuple = visit_Dict = visit_Compare = _value

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        return nodes.Filter(self.visit(nodes.List(node.nodes, lineno=node.lineno)), "join", [], [], None, None, lineno=node.lineno)

    def visit_Getitem(self, node: nodes.Getitem) -> Any:
        return self._value(node) if isinstance(node.arg, nodes.Slice) else self.generic_visit(node)


class _Generation(Extension):
    """transformers' `{% generation %}`, which marks what a model is trained on; here it only has a scope."""

    tags = {"generation"}  # noqa: RUF012 - Jinja's declaration

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.With([], [], parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)


class Sandbox(ImmutableSandboxedEnvironment):
    """transformers' settings, which every published template is written for, within limits."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self, where: object) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, optimized=False, extensions=["jinja2.ext.loopcontrols", _Generation])
        self._where, self._lock, self._end, self._made = where, threading.Lock(), 0.0, 0
        self.globals = {"range": self.globals["range"], "dict": dict, "namespace": _Namespace, "raise_exception": _raise_exception}
        self.filters = {name: self._guarded(name, self.filters[name]) for name in FILTERS}
        self.filters |= {CHECK: pass_context(lambda context, value: self.checked(value)), "tojson": self._guarded("tojson", _to_json)}
        self.tests = {name: self._guarded(name, test) for name, test in self.tests.items()}

    def within_limits(self, work: Callable[[], Result]) -> Result:
        """Return what `work` does with this environment in its time. Raises ModelError of one sentence, whatever happens."""
        with self._lock:
            self._end, self._made = time.thread_time() + MAX_SECONDS, 0
            try:
                return work()
            except RAISED as error:
                raise ModelError(f"{self._where}: the chat template cannot be used ({_said(error)}); {CURE}") from error

    def checked(self, value: Any) -> Any:
        """Return a value that was made. Raises _TooMuchError where it, or all, is too large, or the time is over."""
        if isinstance(value, Iterator):
            value = list(islice(value, MAX_WEIGHT))
        size = weight(value)
        self._made += size
        if size > MAX_WEIGHT or self._made > MAX_MADE:
            raise _TooMuchError("it makes more text than any prompt needs")
        if time.thread_time() > self._end:
            raise _TooMuchError("it runs too long")
        return value

    def concat(self, parts: Any) -> str:
        """Join what a template, a macro or a block writes."""
        found, size = [], 0
        for part in parts:
            size += len(part)
            if size > MAX_WEIGHT:
                raise _TooMuchError("it makes more text than any prompt needs")
            found.append(part)
        return str(self.checked("".join(found)))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Compute an operation whose result has its limits."""
        if operator == "%" and isinstance(left, str):
            raise SecurityError("formatting with % is not allowed")
        if operator == "**" and isinstance(left, int) and isinstance(right, int) and left.bit_length() * max(right, 1) > MAX_BITS:
            raise _TooMuchError("it makes larger numbers than any prompt needs")
        if operator == "*" and not (isinstance(left, int | float) and isinstance(right, int | float)):
            _check_product(*(range(max(value, 0)) if isinstance(value, int) else value for value in (left, right)))
        return self.checked(super().call_binop(context, operator, left, right))

    def wrap_str_format(self, value: Any) -> None:
        """Leave `str.format` to the list of METHODS, which does not have it."""

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Allow what Jinja's sandbox does, of what texts, lists and dicts have only METHODS."""
        return super().is_safe_attribute(obj, attr, value) and (attr in METHODS or not isinstance(obj, PLAIN))

    def call(__self: Sandbox, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Call a function, a method or a macro; any name may be a keyword."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, PLAIN):
            _check_product(owner, *args, *kwargs.values())
        made = super().call(__context, __obj, *args, **kwargs)
        return made if isinstance(__obj, Macro) else __self.checked(made)

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE:
            raise _TooMuchError(f"it has {len(source)} characters, more than {MAX_SOURCE}")
        tree: nodes.Template = _Guard().visit(super()._parse(source, name, filename))
        tree.set_environment(self)
        return tree

    def _guarded(self, name: str, function: Any) -> Callable[..., Any]:
        """Weigh what goes into a filter or a test, and what comes out."""

        @wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            if name in PASSED_ON:
                return function(*args, **kwargs)
            _check_product(*args, *kwargs.values())
            return self.checked(function(*args, **kwargs))

        return guarded


class Template:
    """A template that is compiled once; `where` it comes from stands in errors."""

    def __init__(self, source: str, where: object) -> None:
        self._sandbox = Sandbox(where)
        self._compiled = self._sandbox.within_limits(lambda: self._sandbox.from_string(source))

    def render(self, **variables: Any) -> str:
        """Render the template. Raises ModelError."""
        return self._sandbox.within_limits(lambda: self._compiled.render(**variables))


def weight(value: Any) -> int:
    """Weigh a value with all that is in it, as often as it is; beyond MAX_WEIGHT it does not count on."""
    total, open_values = 0, [value]
    while open_values and total <= MAX_WEIGHT:
        found = open_values.pop()
        total += ITEM
        if isinstance(found, str):
            total += len(found)
        elif isinstance(found, int):
            total += MAX_WEIGHT if found.bit_length() > MAX_BITS else 0
        elif isinstance(found, range):
            total += ITEM * len(found)
        elif isinstance(found, dict):
            open_values += [*found.keys(), *found.values()]
        elif isinstance(found, (list, tuple, Sequence, KeysView, ValuesView, ItemsView)):  # plain types first: those after them take longer
            open_values += found
    return total


def _said(error: Exception) -> str:
    """Say in a few words of one line what went wrong."""
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or calls itself endlessly"
    text = error.msg if isinstance(error, SyntaxError) else str(error)
    return " ".join(scrub(text).split())[:MAX_SAID].rstrip(".") or type(error).__name__


def _check_product(*values: Any) -> None:
    """Raise _TooMuchError where what is made of these values might be too large: as often one as there is of another, at worst."""
    product = 1
    for size in map(weight, values):
        product *= size if size > SHORT else 1
    if product > MAX_PRODUCT:
        raise _TooMuchError("it makes more text than any prompt needs")


def _checked(node: Any) -> nodes.Filter:
    return nodes.Filter(node, CHECK, [], [], None, None, lineno=node.lineno)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, separators: Any = None, sort_keys: bool = False) -> str:
    """As in transformers: nothing is escaped for HTML."""
    if indent is not None and not (isinstance(indent, int) and indent <= MAX_INDENT):
        raise _TooMuchError(f"it indents JSON by more than {MAX_INDENT}")
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message: str) -> None:
    raise TemplateRuntimeError(message)
