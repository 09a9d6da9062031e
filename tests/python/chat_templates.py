"""Chat templates of the shapes that the supported families have, written for the tests."""

PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

DEFAULT_SYSTEM = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou are helpful.<|im_end|>\n"
    "{% endif %}" + PLAIN
)

TRIMMED = (
    "{{ bos_token }}{% for m in messages %}"
    "{{ '<|start|>' + m['role'] + '<|end|>\n\n' + m['content'] | trim + '<|eot|>' }}"
    "{% endfor %}{{ '<|start|>assistant<|end|>\n\n' }}"
)

ROLE_TAGS = (
    "{% set mode = 'off' %}<role>SYSTEM</role>"
    "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}"
    "detailed thinking {{ mode }}<|role_end|>"
    "{% for m in messages %}{% set c = m.content %}"
    "{% if m.role == 'user' %}<role>HUMAN</role>{{ c }}<|role_end|>"
    "{% elif m.role == 'system' and not loop.first %}<role>SYSTEM</role>{{ c }}<|role_end|>"
    "{% elif m.role == 'assistant' %}<role>ASSISTANT</role>"
    "{{ c.split('</think>')[-1].lstrip('\n') if '</think>' in c else c }}<|role_end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<role>ASSISTANT</role>{% endif %}"
)

# Thoughts stay in answers to the last question; wrapped tool results are no question.
THINKING = (
    "{% set ns = namespace(last=messages|length, open=true) %}"
    "{% for m in messages[::-1] %}{% if ns.open and m.role == 'user' and not"
    " (m.content.startswith('<tool_response>') and m.content.endswith('</tool_response>')) %}"
    "{% set ns.open = false %}{% set ns.last = messages|length - 1 - loop.index0 %}"
    "{% endif %}{% endfor %}"
    "{% for m in messages %}{% set c = m.content %}{% set t = '' %}"
    "{% if m.role == 'assistant' and '</think>' in c %}"
    "{% set t = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or t) %}"
    "{% set c = '<think>\n' + t + '\n</think>\n\n' + c.lstrip('\n') %}{% endif %}"
    "<|im_start|>{{ m.role }}\n{{ c }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

NO_SYSTEM = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system role') }}"
    "{% endif %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
)
