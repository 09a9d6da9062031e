"""Jinja for untrusted templates: one that takes too much time or memory is stopped.

Every iteration, call, operator, comparison, filter and output passes a hook that counts what it
makes and looks at the time; what could make much in one go is estimated before it is done. Methods
and filters that chat templates have no use for, and whose price is hard to tell, do not exist.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import BuiltinMethodType, FunctionType, MethodType
from typing import Any

from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.compiler import CodeGenerator
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

from fastdllm.template_budget import (
    Budget,
    check_filter,
    check_format,
    check_method,
    check_power,
    escapes,
    made,
    plain,
    require_small,
    widening,
)

MAX_SOURCE = 2**17  # characters of a template

# fmt: off
_FILTERS = (
    "abs", "attr", "capitalize", "center", "count", "d", "default", "dictsort", "e", "escape",
    "first", "float", "format", "groupby", "indent", "int", "items", "join", "last", "length",
    "list", "lower", "map", "max", "min", "random", "reject", "rejectattr", "replace", "reverse",
    "round", "safe", "select", "selectattr", "sort", "string", "sum", "title", "tojson", "trim",
    "truncate", "unique", "upper", "urlencode", "wordcount",
)
# fmt: on
_JINJAS = ("_loop_vars", "_block_vars")  # what Jinja adds to a call's names


class LimitedEnvironment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with limits, which hold inside limited()."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def __init__(self, **options: Any) -> None:
        """options: those of Jinja's Environment."""
        super().__init__(optimized=False, finalize=self._finalize, **options)
        self._local = threading.local()
        self.globals.pop("lipsum", None)
        self.filters = {
            name: self._limited(name, self.filters[name])
            for name in _FILTERS
            if name in self.filters
        }
        self.filters["tojson"] = self._limited("tojson", _to_json)
        self.tests = {
            name: self._ticking(test) for name, test in dict[str, Any](self.tests).items()
        }

    @contextmanager
    def limited(self, given: int = 0) -> Iterator[Budget]:
        """Let a rendering of `given` characters begin on this thread."""
        self._local.budget = budget = Budget(given)
        try:
            yield budget
        finally:
            del self._local.budget

    @property
    def budget(self) -> Budget:
        """What is left to the rendering of this thread."""
        found: Budget = self._local.budget
        return found

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        if len(source) > MAX_SOURCE:
            raise TemplateSyntaxError(
                f"it has {len(source)} characters; expected at most {MAX_SOURCE}", 1
            )
        tree = _Watched().visit(super()._parse(source, name, filename))
        assert isinstance(tree, nodes.Template)
        tree.set_environment(self)
        return tree

    # What _Watched makes a template call.

    def tick(self, size: int = 0) -> bool:
        """Count an iteration or a call, and the template's own text in it."""
        self.budget.spend(size)
        return True

    def compared(self, value: Any) -> Any:
        """Count a comparison."""
        self.budget.spend()
        return value

    def made(self, value: Any) -> Any:
        """Count a list, tuple or dict that the template writes down."""
        self.budget.spend(self.budget.measure(value))
        return value

    def tilde(self, *values: Any) -> str:
        """Concatenate, as `~` does."""
        texts = [self.budget.text(value) for value in values]
        size = sum(map(sys.getsizeof, texts)) * widening(texts)
        self.budget.require(size)
        self.budget.spend(size)
        return "".join(texts)

    @pass_context
    def _finalize(self, context: Context, value: Any) -> str:
        text = self.budget.text(value)
        self.budget.spend(sys.getsizeof(text))
        return text

    # What Jinja calls.

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """Calculate within the limits."""
        budget = self.budget
        if operator == "+" and type(left) is str and type(right) is str:
            result = left + right  # of two that were made within the limits
            budget.require(len(result))
            budget.spend(sys.getsizeof(result))
            return result
        for side in (left, right):
            if isinstance(side, int):
                require_small(side)
        if operator == "**":
            check_power(left, right)
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, (str, list, tuple, bytes)) and isinstance(times, int):
                    size = plain(one) if isinstance(one, str) else budget.measure(one)
                    budget.require(size * max(times, 0))
        elif operator == "%" and isinstance(left, str):
            check_format(budget, left, right if isinstance(right, tuple) else (right,))
        elif operator == "+" and isinstance(left, (str, list, tuple)):
            size = budget.measure(left) + budget.measure(right)
            budget.require(size * (6 if escapes(left) or escapes(right) else 1))
        result = super().call_binop(context, operator, left, right)
        budget.spend(made(result))
        return result

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Call what may be called."""
        budget = self.budget
        budget.spend()
        method = obj.__dict__.get("__wrapped__", obj) if isinstance(obj, FunctionType) else obj
        if isinstance(method, (BuiltinMethodType, MethodType)):
            given = {name: value for name, value in kwargs.items() if name not in _JINJAS}
            args = check_method(budget, method, args, given)
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, list):  # of split()
            size = 8 * len(result) + sum(sys.getsizeof(s) for s in result if isinstance(s, str))
            budget.spend(size)
        else:
            budget.spend(made(result))
        return result

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Take a part of a value."""
        result = super().getitem(obj, argument)
        if isinstance(argument, slice):
            self.budget.spend(made(result))
        return result

    def _ticking(self, test: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(test)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.budget.spend()
            return test(*args, **kwargs)

        return run

    def _limited(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        first = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            budget = self.budget
            budget.spend()
            checked = check_filter(budget, name, args[first:], kwargs)
            result = function(*args[:first], *checked, **kwargs)
            budget.spend(made(result))
            return result

        return run


class GenerationTag(Extension):
    """{% generation %}, which marks a model's words for those who train: they stand as they are."""

    tags = {"generation"}  # noqa: RUF012 - as Jinja types it

    def parse(self, parser: Parser) -> nodes.Node:
        """Take what stands up to {% endgeneration %}."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


TEMPLATE_EXTENSIONS: tuple[str | type[Extension], ...] = ("jinja2.ext.loopcontrols", GenerationTag)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: Any = None,
    sort_keys: bool = False,
) -> str:
    """Write JSON as chat templates expect it: letters and marks as they are, nothing for HTML."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


class _Generator(CodeGenerator):
    """Writes what _Watched adds as plain calls."""

    def visit_Call(self, node: nodes.Call, frame: Any, **more: Any) -> None:  # type: ignore[override]
        if not isinstance(node.node, nodes.EnvironmentAttribute):
            super().visit_Call(node, frame, **more)
            return
        self.write(f"environment.{node.node.name}(")
        for number, argument in enumerate(node.args):
            self.write(", " if number else "")
            self.visit(argument, frame)
        self.write(")")


LimitedEnvironment.code_generator_class = _Generator


class _Watched(NodeTransformer):
    """Adds the calls that count to a template's syntax."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self._count(node)
        if node.test is not None:
            node.test = nodes.And(_call("tick", [], node), node.test, lineno=node.lineno)
        return node

    def _count(self, node: Any) -> nodes.Node:
        """Let the body begin with a tick."""
        self.generic_visit(node)
        size = sum(len(text.data) for text in node.find_all(nodes.TemplateData))
        tick = _call("tick", [nodes.Const(4 * size, lineno=node.lineno)], node)
        node.body.insert(0, nodes.ExprStmt(tick, lineno=node.lineno))
        return node  # type: ignore[no-any-return]

    visit_Macro = visit_CallBlock = visit_Block = _count

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _call("tilde", node.nodes, node)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        sides = [node.expr, *(op.expr for op in node.ops)]
        small = any(isinstance(side, nodes.Const) for side in sides)
        self.generic_visit(node)
        if small and all(op.op not in ("in", "notin") for op in node.ops):
            return node
        return _call("compared", [node], node)

    def _make(self, node: Any) -> nodes.Node:
        constant = all(isinstance(child, nodes.Const) for child in node.iter_child_nodes())
        self.generic_visit(node)
        if constant or getattr(node, "ctx", "load") != "load":
            return node  # type: ignore[no-any-return]
        return _call("made", [node], node)

    visit_List = visit_Tuple = visit_Dict = _make

    def _refuse(self, node: nodes.Node) -> nodes.Node:
        raise TemplateSyntaxError("it uses other templates or autoescape", node.lineno)

    visit_Include = visit_Import = visit_FromImport = visit_Extends = _refuse
    visit_EvalContextModifier = visit_ScopedEvalContextModifier = _refuse


def _call(name: str, args: list[nodes.Expr], at: nodes.Node) -> nodes.Call:
    function = nodes.EnvironmentAttribute(name, lineno=at.lineno)
    return nodes.Call(function, args, [], None, None, lineno=at.lineno)
