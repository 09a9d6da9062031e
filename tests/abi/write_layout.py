"""Writes a C program that prints the layout of every struct in the C headers and every constant.

write_layout.py HEADER... > layout.c
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

START = """#include <fastdllm/fastdllm.h>
#include <fastdllm/fastdllm_text.h>
#include <stdio.h>

#define VALUE(name) printf("%s = %d\\n", #name, (int)(name))
#define STRUCT(name) printf("%s: %u bytes\\n", #name, (unsigned)sizeof(name))
#define FIELD(name, field) \\
  printf("%s.%s: at %u, %u bytes\\n", #name, #field, (unsigned)offsetof(name, field), \\
         (unsigned)sizeof(((name*)NULL)->field))

int main(void) {"""


def statements(header: str) -> list[str]:
    code = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    lines = [f"VALUE({name});" for name in re.findall(r"\b(FASTDLLM_\w+) = ", code)]
    for body, name in re.findall(r"typedef struct \w+ \{(.*?)\} (\w+);", code, re.DOTALL):
        fields = re.findall(r"(\w+)\s*;", body)
        lines += [f"STRUCT({name});", *(f"FIELD({name}, {field});" for field in fields)]
    return lines


def main() -> None:
    print(START)
    for header in sys.argv[1:]:
        for statement in statements(Path(header).read_text("utf-8")):
            print(f"  {statement}")
    print("  return 0;\n}")


if __name__ == "__main__":
    main()
