"""What a chat template may not do is cut within a second, in one sentence with the model's name; what published ones do stays as it is."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import jinja2
import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment
from transformers.utils.chat_template_utils import _compile_jinja_template

from mflamingo_cli.core.chat import FALLBACK_TEMPLATE, build_messages
from mflamingo_cli.core.sandbox import MAX_NODES, MAX_SOURCE, MAX_WEIGHT, Template
from mflamingo_cli.errors import ModelError
from quant.vocabulary import chat_template
from tests import checkpoints

LIMIT_S = 1.0  # of the thread: other processes do not count
CONVERSATIONS = [
    build_messages("Key?", audio=True),
    build_messages("Key?", audio=False, system="Answer in one word."),
    build_messages("And the key?\n <b>'&\" 音🎵", audio=True, history=(("Tempo?", "120 BPM"), ("Meter?", "4/4"))),
]
TOO_MUCH, ENDLESS = "makes more text than any prompt needs", "runs too long"
EITHER = f"{TOO_MUCH}|{ENDLESS}"  # whichever comes first on this machine
TOO_DEEP = "is nested too deeply, or calls itself endlessly"
LOOP = "{%% set ns = namespace(x=%s) %%}{%% for i in range(1000) %%}{%% set ns.x = %s %%}{%% endfor %%}{{ ns.x }}"


def render(source: str) -> str:
    """Render a template for a question about a song, in its time."""
    begun = time.thread_time()
    try:
        return Template(source, "some/model").render(messages=CONVERSATIONS[0], add_generation_prompt=True)
    finally:
        assert time.thread_time() - begun < LIMIT_S


@pytest.mark.parametrize(
    "source",
    [
        checkpoints.TEMPLATE,
        FALLBACK_TEMPLATE,
        "{{ messages|tojson }}{{ messages|tojson(indent=2) }}",  # without HTML's escapes
        "{%- for m in messages[::-1] %}\n  {{- m.role|upper ~ '\\n' + m['content']|string|trim }}\n{% endfor %}",
        "{% macro turn(m) %}{{ m.role }}{{ caller() }}{% endmacro %}{% for m in messages %}{% call turn(m) %}!{% endcall %}{% endfor %}",
        "{% for m in messages if m.role == 'user' %}{{ loop.last }}{% if loop.index > 1 %}{% break %}{% endif %}{% endfor %}",
        "{{ messages|map(attribute='role')|join('-') }}{{ messages|selectattr('role', 'equalto', 'user')|list|length }}",
        "{% generation %}{{ messages[0].role }}{% endgeneration %}{{ messages[-1]['role'].split('s') if messages else 2 % 3 }}",
        "{% set x %}{{ [1, (2, 3), {'a': none}] }}{% endset %}{{ x }}{{ 'a' 'b' ~ 1.5 ~ true ~ missing }}{{ {'b': 1, 'a': 2}|dictsort }}",
    ],
)
def test_templates_are_rendered_as_transformers_renders_them(source: str) -> None:
    theirs, ours = _compile_jinja_template(source), Template(source, "some/model")
    for messages in CONVERSATIONS:
        for wanted in (True, False):
            variables = {"messages": messages, "add_generation_prompt": wanted}
            assert ours.render(**variables) == theirs.render(**variables) != ""


@pytest.mark.parametrize("layout", checkpoints.PUBLISHED)
def test_templates_of_published_checkpoints_are_rendered_byte_for_byte(layout: str, tmp_path: Path) -> None:
    source = chat_template(checkpoints.publish(tmp_path, layout), {})
    assert source is not None
    messages = CONVERSATIONS[2]
    expected = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source).render(messages=messages)
    assert Template(source, layout).render(messages=messages) == expected
    assert expected.count("<sound>") == 1


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3, ENDLESS),  # 10¹⁵
        ("{% for a in range(99999) if a < 0 %}{% endfor %}" * 99, ENDLESS),
        ("{% for a in range(99999) %}{% set x = messages == messages|list %}{% endfor %}", ENDLESS),
        ("{% macro f(n) %}{{ f(n - 1) ~ f(n - 1) if n else 1 }}{% endmacro %}{{ f(60) }}", ENDLESS),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", TOO_DEEP),
        ("{% for m in messages recursive %}{{ loop(messages) }}{% endfor %}", TOO_DEEP),
        ("{% block b %}{{ self.b() }}{% endblock %}", TOO_DEEP),
        ("{{ " + "[" * 1000 + "]" * 1000 + " }}", TOO_DEEP),
        ("{% if x %}" * 300 + "{% endif %}" * 300, TOO_DEEP),
        ("{{ 'x' * 1000000000000 }}", TOO_MUCH),
        ("{{ [0] * 1000000000000 }}", TOO_MUCH),
        (LOOP % ("'x'", "ns.x ~ ns.x"), TOO_MUCH),
        (LOOP % ("'x'", "ns.x + ns.x"), TOO_MUCH),
        (LOOP % ("'xx'", "ns.x|replace('x', 'xx' * 9)"), TOO_MUCH),
        (LOOP % ("[]", "[ns.x, ns.x]"), EITHER),
        (LOOP % ("()", "(ns.x, ns.x)"), EITHER),
        (LOOP % ("1", "{'a': ns.x, 'b': ns.x}"), EITHER),
        (LOOP % ("'x'", "(ns.x, ns.x)|join(ns.x)"), TOO_MUCH),
        ("{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}", EITHER),
        ("{% set x %}{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}{% endset %}", EITHER),
        ("".join(f"{{% set a{i} = '🎵' * 1900000 + 'x' %}}" for i in range(99)), EITHER),
        ("{{ ('a' * 1900000).rfind('b' + 'a' * 900000) }}", TOO_MUCH),  # a search of half an hour
        ("{{ ('a' * 1900000).strip('b' * 900000 + 'a') }}", TOO_MUCH),
        ("{{ 'x y' * 600000 }}{{ ('x y' * 600000).split() }}", TOO_MUCH),
        ("{{ 2 ** 1000000000 }}", "makes larger numbers than any prompt needs"),
        (LOOP % ("2", "ns.x * ns.x"), TOO_MUCH),
        ("{{ messages|tojson(indent=1000000000) }}", "indents JSON by more than 64"),
        ("{{ '%1000000000d' % 1 }}", "formatting with % is not allowed"),
        ("{{ '{:1000000000}'.format(1) }}", "access to attribute 'format' of 'str' object is unsafe"),
        ("{{ 'x'.center(1000000000) }}", "access to attribute 'center' of 'str' object is unsafe"),
        ("{{ ('x'|safe).center(1000000000) }}", "access to attribute 'center' of 'Markup' object is unsafe"),
        ("{{ (1).to_bytes(1000000000) }}", "access to attribute 'to_bytes' of 'int' object is unsafe"),
        ("{{ 'x'|center(1000000000) }}", "No filter named 'center'"),
        ("{{ lipsum(100000) }}", "'lipsum' is undefined"),
        ("{{ ''.__class__.__mro__ }}", "access to attribute '__class__' of 'str' object is unsafe"),
        ("{% include '/etc/passwd' %}", "no loader for this environment specified"),
        ("x" * (MAX_SOURCE + 1), f"it has {MAX_SOURCE + 1} characters, more than {MAX_SOURCE}"),
        ("{{ a+a }}" * (MAX_SOURCE // 9), f"it has more than {MAX_NODES} syntax nodes"),
        ("{{ a" + "|trim" * 250 + " }}", "too many nested parentheses"),
        ("{{ raise_exception('no\n\x1b[31mno') }}", r"\(no \[31mno\)"),
        ("{{ raise_exception('x' * 99999) }}", r"\(x{200}\)"),
        ("{{ messages[99].role }}", "has no element 99"),
        ("{{ 1 / 0 }}", "division by zero"),
        ("{{ (1e308 * 10)|int }}", "cannot convert float infinity to integer"),
        ("{% for %}", "expected token 'end of statement block'|Expected an expression|unexpected"),
        ("{% for m in 1 %}{% endfor %}", "'int' object is not iterable"),
        ("{% set x = 1 %}{{ x() }}", "'int' object is not callable"),
    ],
)  # fmt: skip
def test_what_a_template_may_not_do_is_one_sentence(source: str, why: str) -> None:
    with pytest.raises(ModelError, match=why) as raised:
        render(source)
    message = str(raised.value)
    assert message.startswith("some/model: the chat template cannot be used (")
    assert message.isprintable()
    assert len(message) < 400


def test_a_namespace_that_holds_itself_is_not_written_out() -> None:
    assert (
        render("{% set a = namespace() %}{% set a.a = a %}{% set a.b = [a, a] %}{{ a }}{{ a.b }}")
        == "<namespace>[<namespace>, <namespace>]"
    )


def test_a_whole_context_is_rendered() -> None:
    long = "The chords are C, G, Am and F; 120 BPM. " * 15_000  # 131,072 tokens
    messages = build_messages(long, audio=True, history=[("Tempo?", "120 BPM")] * 200)
    assert MAX_WEIGHT > len(long) == 600_000
    whole = Template(checkpoints.TEMPLATE, "some/model").render(messages=messages, add_generation_prompt=True)
    assert whole.endswith(f"user\n{long}<|im_end|>\n<|im_start|>assistant\n")
    assert whole.count("120 BPM<|im_end|>") == 200


def test_a_template_is_cut_as_often_as_it_is_rendered_and_works_afterwards() -> None:
    template = Template("{% for a in range(n) %}{% for b in range(n) %}{% endfor %}{% endfor %}x", "some/model")
    for _ in range(2):
        with pytest.raises(ModelError, match=ENDLESS):
            template.render(n=99_999)
        assert template.render(n=9) == "x"


def test_two_threads_do_not_share_a_limit() -> None:
    template, found = Template("{{ 'x' * 1900000 }}", "some/model"), []
    threads = [threading.Thread(target=lambda: found.extend(len(template.render()) for _ in range(20))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1_900_000] * 80


def test_every_filter_of_the_list_is_one_of_jinja() -> None:
    from mflamingo_cli.core.sandbox import FILTERS

    assert set(jinja2.Environment().filters) > FILTERS
