"""Chat templates that would hold the interpreter or fill the memory: each gets an error."""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from fastdllm.export.chat_format import derive_chat_format
from fastdllm.export.errors import CheckpointError
from fastdllm.export.text_assets import read_text_assets
from fastdllm.template_limits import MAX_SOURCE
from fastdllm.text import ChatTemplate, TemplateLimitError, TextError

import chat_templates
from conftest import PackageOf

MESSAGES = [{"role": "user", "content": "hi"}]
GIB = 2**30
NS = "{% set ns = namespace(a='x', b=[0], c=[0], n=7) %}{% for i in range(100000) %}"
END = "{% endfor %}"
HOSTILE: dict[str, str] = {
    "nested loops": "{% for i in range(100000) %}{% for j in range(100000) %}" + END * 2,
    "loops over nothing": "{% for i in range(100000) %}"
    "{% for j in range(100000) if false %}{% endfor %}{% endfor %}",
    "a huge range": "{% for i in range(10 ** 12) %}{% endfor %}",
    "a width": "{{ '%3000000000d' % 1 }}",
    "a width of a filter": "{{ '%3000000000d'|format(1) }}",
    "a width of a method": "{{ '{:>3000000000}'.format(1) }}",
    "a width that is a value": "{{ '{:>{}}'.format(1, 3000000000) }}",
    "a width that is a star": "{{ '%*d' % (3000000000, 1) }}",
    "long values in a format": "{% set a = 'x' * 9000000 %}{{ '%s%s' % (a, a) }}",
    "a text many times": "{{ 'x' * 1000000000 }}",
    "many times a text": "{{ 1000000000 * 'x' }}",
    "a list many times": "{{ ([1] * 1000000000)|length }}",
    "a power": "{{ 9 ** (9 ** 9) }}",
    "products": NS + "{% set ns.n = ns.n * ns.n %}" + END,
    "doubling by tilde": NS + "{% set ns.a = ns.a ~ ns.a %}" + END,
    "doubling by plus": NS + "{% set ns.a = ns.a + ns.a %}" + END,
    "doubling a list": NS + "{% set ns.b = ns.b + ns.b %}" + END,
    "lists in lists": NS
    + "{% set ns.b = [ns.b, ns.b] %}{% set ns.c = [ns.c, ns.c] %}"
    + END
    + "{{ ns.b == ns.c }}",
    "deep lists": NS + "{% set ns.b = [ns.b] %}" + END,
    "recursion": "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "recursion that branches": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}"
    "{% endmacro %}{{ f(60) }}",
    "a recursive loop": "{% for i in [1, 1] recursive %}{{ loop([1, 1]) }}{% endfor %}",
    "deep brackets": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "a long sum": "{{ " + "+".join("1" * 20000) + " }}",
    "deep blocks": "{% for i in messages %}" * 30 + END * 30,
    "deep conditions": "{% if a %}" * 6000 + "{% endif %}" * 6000,
    "center": "{{ 'x'.center(1000000000) }}",
    "the filter center": "{{ 'x'|center(1000000000) }}",
    "zfill": "{{ '1'.zfill(3000000000) }}",
    "expandtabs": "{{ '\t'.expandtabs(1000000000) }}",
    "bytes": "{{ (5).to_bytes(1000000000, 'big') }}",
    "bytes of a text": "{{ 'x'.encode().center(1000000000) }}",
    "a method in a variable": "{% set f = 'x'.center %}{{ f(1000000000) }}",
    "a method by map": "{{ (['x']|map(attribute='center')|first)(1000000000) }}",
    "replace": "{{ ('a' * 100000).replace('a', 'b' * 100000) }}",
    "the filter replace": "{{ ('a' * 100000)|replace('a', 'b' * 100000) }}",
    "replacing nothing": "{{ ('a' * 100000)|replace('', 'b' * 100000) }}",
    "join": "{{ (['a'] * 100000)|join('b' * 100000) }}",
    "the method join": "{{ ('b' * 100000).join(['a'] * 100000) }}",
    "tojson": "{{ [[1]]|tojson(indent=1000000000) }}",
    "indent": "{{ 'a\nb'|indent(1000000000) }}",
    "lipsum": "{{ lipsum(100000000) }}",
    "slices": "{{ range(9)|slice(1000000000)|list }}",
    "long texts in a loop": "{% for i in range(100000) %}" + "x" * 100000 + END,
    "long values in a loop": "{% set a = 'x' * 10000000 %}{% for i in range(100000) %}{{ a }}"
    + END,
    "many long values": "".join(f"{{% set a{i} = 'x' * 10000000 %}}" for i in range(500)),
    "long values of a map": "{{ range(100000)|map('string')|map('center', 60000)|list|length }}",
    "what the parser would do": "{% autoescape 'x'|center(1000000000) %}{% endautoescape %}",
    "a long date": "{{ strftime_now('%A' * 100000) }}",
    "sums of lists": "{{ ([[1]] * 100000)|sum(start=[])|length }}",
    "round": "{{ 5|round(-1000000000) }}",
    "digits": "{{ ('9' * 1000000)|int(base=16) }}",
    "many digits": "{{ " + "9" * 100000 + " }}",
    "many words": "{% set a = 'ab ' * 5000000 %}{{ a.split()|length }}{{ a.split()|length }}",
    "many arguments": "{% set a = [1] * 10000000 %}{{ cycler(*a) }}",
    "a namespace in itself": "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}",
    "a long source": "x" * (MAX_SOURCE + 1),
}


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (4 * GIB, 4 * GIB))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_gets_an_error_soon(name: str) -> None:
    started = time.thread_time()
    with pytest.raises(TextError) as refused:
        ChatTemplate(HOSTILE[name], {}).render(MESSAGES)
    assert time.thread_time() - started < 10
    assert len(str(refused.value)) < 1200


def test_hostile_templates_stay_within_memory() -> None:
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_template_limits import *\n"
        "limit_memory()\n"
        "for source in HOSTILE.values():\n"
        "    try: ChatTemplate(source, {}).render(MESSAGES)\n"
        "    except TextError as problem: assert 'memory' not in str(problem)\n"
        "    else: raise SystemExit(source[:80])\n"
        # The peak since exec: ru_maxrss begins with that of the process that started it.
        "lines = Path('/proc/self/status').read_text().splitlines()\n"
        "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))\n"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1024 * 1024  # KiB


def test_a_stopped_template_can_be_used_again() -> None:
    template = ChatTemplate(
        "{% for m in messages %}{% if m.content == 'loop' %}"
        + HOSTILE["nested loops"]
        + "{% endif %}{{ m.content }}{% endfor %}",
        {},
    )
    with pytest.raises(TemplateLimitError, match="takes more than 2 seconds"):
        template.render([{"role": "user", "content": "loop"}])
    assert template.render(MESSAGES) == "hi"


@pytest.mark.parametrize("kind", ["DEFAULT_SYSTEM", "PLAIN", "ROLE_TAGS", "THINKING", "TRIMMED"])
@pytest.mark.parametrize("turns", [1, 2, 9, 1000])
def test_usual_templates_render_as_jinja_does(kind: str, turns: int) -> None:
    source = getattr(chat_templates, kind)
    content = "<think>\nx\n</think>\n\n Some words. " * 20
    messages = [
        {"role": ("user", "assistant")[i % 2], "content": content[i % 7 :]} for i in range(turns)
    ]
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    given: dict[str, Any] = {"messages": messages, "add_generation_prompt": True}
    expected = environment.from_string(source).render(**given, bos_token="<s>")
    assert ChatTemplate(source, {"bos_token": "<s>"}).render(messages) == expected


def test_what_templates_of_today_use_still_works() -> None:
    source = (
        "{%- macro call(t, n=1) -%}{{ t.name | upper }}({{ t.args | tojson }})"
        "{{ caller() if caller }}"
        "{%- endmacro -%}"
        "{%- set ns = namespace(seen=[], text='') -%}"
        "{%- for t in tools | selectattr('name', 'ne', 'x') | list -%}"
        "{%- set ns.seen = ns.seen + [t.name] -%}{%- set ns.text = ns.text ~ loop.index -%}"
        "{{ call(t) }}{%- if loop.last %}{% break %}{% endif -%}{%- endfor -%}"
        "{%- call call(tools[0]) -%}inner{%- endcall -%}"
        "{{ ns.seen | join(', ') }} {{ ns.text }} {{ '%s-%03d' % ('a', 7) }}"
        "{{ '{}:{:>3}'.format(1, 2) }}"
        "{%- filter indent(2) %}a\nb{% endfilter -%}{%- set x %}<{{ 1 + 2 * 3 }}>{% endset -%}"
        "{{ x }}{{ messages[-1:][0].content.split('</think>')[-1].lstrip('\n') | trim }}"
        "{%- for k, v in {'a': 1, 'b': [2, 3]}.items() %}{{ k }}={{ v }};{% endfor -%}"
        "{{ 'x' in ['x', 'y'] and 3 is odd and not undefined_one }}{{ 7 // 2 ** 1 - 1 }}"
        "{{ '-' * 9 }}"
        "{{ range(4) | map('string') | join('') }}{{ [3, 1, 2] | sort | reverse | list }}"
        "{{ 'a b'.title() }}{{ (1, 2) }}{{ {'k': [none, true]} }}{{ 'é' ~ 1 ~ none }}"
    )
    given: dict[str, Any] = {
        "messages": [{"role": "user", "content": "t</think>\n\nhi "}],
        "tools": [{"name": "f", "args": {"a": [1]}}, {"name": "x"}, {"name": "g", "args": None}],
    }
    plain = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    template = ChatTemplate(source, {})
    with template._environment.limited():
        assert template._template.render(**given) == plain.from_string(source).render(**given)


@pytest.mark.parametrize("where", ["always", "with an answer", "with a long text"])
def test_the_export_refuses_a_template_beyond_the_limits(
    package_of: PackageOf, tmp_path: Path, where: str
) -> None:
    loops = HOSTILE["nested loops"]
    condition = {
        "always": "true",
        "with an answer": "messages | length > 2",
        "with a long text": "messages[0].content | length > 5000",
    }[where]
    source = f"{{% if {condition} %}}{loops}{{% endif %}}" + chat_templates.PLAIN
    name = "tokenizer.json"
    (tmp_path / name).write_bytes((package_of("tiny_math") / name).read_bytes())
    (tmp_path / "chat_template.jinja").write_text(source)
    with pytest.raises(CheckpointError, match=r"chat template: .*takes more than 2 seconds"):
        read_text_assets(tmp_path, 2**20)


def test_comparing_with_a_format_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastdllm.export.chat_format.MAX_SECONDS", 0.05)
    form, reason = derive_chat_format(chat_templates.THINKING, {})
    assert form is None
    assert "takes more than 0.05 seconds" in str(reason)
