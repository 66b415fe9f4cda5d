"""Chat templates that loop, grow, recurse or fail, put together at random from what Jinja can say, for a conversation with audio."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.fuzz import numbers

NAMES = (
    "messages", "m", "x", "x", "x", "loop.index", "loop", "range", "dict", "self", "raise_exception", "add_generation_prompt",
    "namespace", "''", "'x'", "'%s'", "[]", "{}", "none", "m.content", "messages[0]['role']", "messages[0]", "'\\u0131\\U0001f3b5'",
    "x[1:]",
)  # fmt: skip
NUMBERS = ("0", "1", "2", "3", "-1", "99", "1000", "100000", "10**6", "10**9", "10**18", "1.5", "1e300", "2**62")
FILTERS = (
    "upper", "length", "list", "join", "join(x)", "join('x' * {n})", "string", "tojson", "tojson(indent={n})", "trim", "trim('x' * {n})",
    "sort", "unique|list", "map('upper')|list", "map(attribute='role')|list", "sort(attribute='role')", "int", "int(base={n})", "float",
    "abs", "first", "last", "reverse|list", "replace('', 'xxxx')", "replace('x', 'x' * {n})", "items|list", "dictsort",
    "groupby('role')|list", "selectattr('role')|list", "rejectattr('role', 'equalto', x)|list", "select('in', x)|list", "escape", "safe",
    "default('x')", "title", "capitalize", "min", "max",
)  # fmt: skip
REFUSED = (
    "center({n})", "indent({n})", "batch({n}, 'x')|list", "slice({n})|list", "sum(start=[])", "random", "round({n})", "truncate({n})",
    "urlize", "wordwrap({n})", "format({n})", "xmlattr", "pprint", "attr('__class__')", "filesizeformat", "striptags", "wordcount",
    "urlencode",
)  # fmt: skip
CALLS = (
    "range({n})", "range({n}, {n})", "range(0, {n}, 1)|list", "f({e})", "f()", "('x' * {n})", "([0] * {n})", "({e}).join({e})",
    "({e}).split({e})", "({e})[{e}]", "({e})[{n}:]", "({e})[::{n}]", "({e}).replace({e}, {e})", "({e}).rfind({e})", "({e}).strip({e})",
    "raise_exception({e})", "namespace(n={e})", "dict(a={e})", "({e}).count({e})", "({e}).get({e}, {e})", "({e}).items()", "loop({e})",
    "loop.cycle({e}, {e})", "loop.changed({e})", "self.b()", "caller()", "({e})|safe ~ ({e})",
)  # fmt: skip
REFUSED_CALLS = (
    "lipsum({n})", "cycler(1, 2).next()", "'{{}}'.format({e})", "'{{0:>{n}}}'.format(1)", "({e}).zfill({n})", "({e}).center({n})",
    "(({e})|safe).center({n})", "'%{n}d' % 1", "'%.*f' % ({n}, 1)", "({e}).append({e})", "({e}).encode()", "({e}).__class__",
    "({e}).translate({e})", "('\\t' * 1000).expandtabs({n})", "({e}).format_map({e})", "(1).to_bytes({n})", "joiner(x)()",
    "strftime_now({e})",
)  # fmt: skip
RARE = (
    "{% block b %}x{{ self.b() }}{% endblock %}", "{% include x %}", "{% import 'x' as x %}", "{% extends x %}", "{% break %}",
    "{% continue %}", "{% for m in range(9) %}{% break %}{% endfor %}", "{% unknown %}", "{{ x",
)  # fmt: skip
OPERATORS = ("+", "-", "*", "/", "//", "%", "**", "~", "==", "<", "in", "and", "or", "not in", "is in", "is eq", "is ge")
SEED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}<sound>{% endif %}<|im_end|>\n"
    "{% endfor %}"
)


def make_seeds(folder: Path) -> None:
    """The template of a published model, and ours."""
    from mflamingo_cli.core.chat import FALLBACK_TEMPLATE
    from tests.checkpoints import TEMPLATE

    for name, source in (("published", TEMPLATE), ("ours", FALLBACK_TEMPLATE), ("strings", SEED)):
        (folder / name).write_text(source, encoding="utf-8")


def mutate(rng: Random, seeds: Path, folder: Path) -> Path:
    """Break a template, or make one up."""
    path, seed = folder / "chat_template.jinja", rng.choice(sorted(seeds.iterdir()))
    if rng.random() < 0.2:
        path.write_bytes(numbers.scattered(rng, seed.read_bytes()))
    else:
        body = "".join(statement(rng, 3) for _ in range(rng.choice((1, 2, 3))))
        body = "{% set x = messages %}" + body
        path.write_text(rng.choice((body, seed.read_text() + body, body + seed.read_text())), encoding="utf-8")
    return path


def run(path: Path) -> None:
    """Render a prompt, as both back ends do before they answer."""
    from mflamingo_cli.core.chat import ChatTemplate, build_messages
    from quant.geometry import AudioTokens
    from quant.vocabulary import chat_template

    template = ChatTemplate(chat_template(path.parent, {}), AudioTokens("<sound>"), path)
    template.render_prompt(build_messages("Key?", audio=True, history=(("Tempo?", "120"),)))


def statement(rng: Random, depth: int) -> str:
    """Text, output, a loop, a condition, a variable, a macro, or what includes other templates."""
    if rng.random() < 0.02:
        return rng.choice(RARE)
    inner = "".join(statement(rng, depth - 1) for _ in range(rng.choice((1, 2)))) if depth else "x"
    e = expression(rng, 2)
    return rng.choice(
        (
            "text ",
            f"{{{{ {e} }}}}",
            f"{{{{ {e} }}}}",
            f"{{% set x = {e} %}}",
            f"{{% set x = x ~ x %}}{inner}",
            f"{{% for m in {e} %}}{inner}{{% endfor %}}",
            f"{{% for m in range({rng.choice(NUMBERS)}) %}}{inner}{{% endfor %}}",
            f"{{% for i in range(100) %}}{{% for j in range(100) %}}{inner}{{% endfor %}}{{% endfor %}}",
            f"{{% set ns = namespace(n='x') %}}{{% for i in range(99) %}}{{% set ns.n = ns.n + ns.n %}}{inner}{{% endfor %}}",
            f"{{% set ns = namespace(n=[0]) %}}{{% for i in range(99) %}}{{% set ns.n = ns.n * 2 %}}{inner}{{% endfor %}}",
            "{% set ns = namespace(n=3) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
            f"{{% for m in messages recursive %}}{inner}{{{{ loop(messages) }}}}{{% endfor %}}",
            f"{{% if {e} %}}{inner}{{% elif {e} %}}{inner}{{% else %}}y{{% endif %}}",
            f"{{% macro f(x) %}}{inner}{{{{ f(x) }}}}{{% endmacro %}}{{{{ f({e}) }}}}",
            "{% macro f(x) %}{{ f(x) ~ f(x) }}{% endmacro %}{{ f(1) }}",
            f"{{% macro f(x) %}}{inner}{{{{ caller() }}}}{{% endmacro %}}{{% call f({e}) %}}{inner}{{% endcall %}}",
            f"{{% autoescape true %}}{inner}{{% endautoescape %}}",
            f"{{% for a, b in {e} if {e} %}}{inner}{{% else %}}{inner}{{% endfor %}}",
            f"{{% filter {rng.choice(FILTERS).format(n=rng.choice(NUMBERS))} %}}{inner}{{% endfilter %}}",
            f"{{% set x %}}{inner}{{% endset %}}",
            f"{{% with x = {e} %}}{inner}{{% endwith %}}",
            f"{{% generation %}}{inner}{{% endgeneration %}}",
        )
    )


def expression(rng: Random, depth: int) -> str:
    """A name, a number, a call, a filter, an operation."""
    n = rng.choice(NUMBERS)
    if not depth:
        return rng.choice((rng.choice(NAMES), n))
    e = expression(rng, depth - 1)
    return rng.choice(
        (
            e,
            f"({e})|{rng.choice(FILTERS).format(n=n)}",
            f"({e})|{rng.choice(REFUSED if rng.random() < 0.1 else FILTERS).format(n=n)}",
            f"({e})|{rng.choice(FILTERS).format(n=n)}",
            rng.choice(CALLS).format(e=e, n=n),
            rng.choice(CALLS).format(e=e, n=n),
            rng.choice(REFUSED_CALLS if rng.random() < 0.1 else CALLS).format(e=e, n=n),
            f"({e}) {rng.choice(OPERATORS)} ({expression(rng, depth - 1)})",
            f"({e}) * {n}",
            f"{e} if {e} else {e}",
            f"[{e}, {e}] * {n}",
        )
    )
