"""The paper's tables as Markdown: ours beside the paper's numbers, and why shapes differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COMMAND = "python benchmarks/paper.py"
ABOUT = "Fast-dLLM, arXiv 2505.22618"
# LLaDA-8B-Instruct on GSM8K, 5-shot, A100, prefix cache: accuracy in %, tokens/s.
PAPER_MAIN: dict[str, dict[int, tuple[float, float]]] = {
    "baseline": {256: (79.3, 6.7), 512: (77.5, 3.2)},
    "+cache, prefix": {256: (79.5, 21.2), 512: (77.0, 10.4)},
    "+parallel": {256: (79.2, 16.5), 512: (77.6, 18.6)},
    "+both, prefix": {256: (78.5, 54.4), 512: (77.2, 35.3)},
}
PAPER_LENGTHS = (256, 512)
# The same model and task; shots, new tokens: baseline, parallel, parallel + prefix, + dual.
PAPER_LONG: dict[tuple[int, int], tuple[tuple[float, float], ...]] = {
    (5, 1024): ((77.0, 1.1), (77.4, 11.7), (75.2, 14.4), (74.7, 21.6)),
    (8, 1024): ((77.3, 0.7), (78.0, 9.3), (75.7, 13.0), (76.0, 19.3)),
    (8, 512): ((78.9, 2.3), (78.9, 14.0), (74.8, 32.0), (75.4, 36.4)),
    (8, 256): ((77.6, 4.9), (77.9, 16.4), (77.3, 49.2), (76.9, 46.3)),
}
# Tokens per step by threshold on GSM8K.
PAPER_TOKENS_PER_STEP = {1.0: 1.0, 0.9: 3.25, 0.8: 4.24, 0.7: 5.12, 0.6: 6.17, 0.5: 7.01}

Row = dict[str, Any]


def markdown(report: dict[str, Any], pictures: dict[str, str]) -> str:
    """Return the page. pictures: file names by table."""
    config, machine = report["config"], report["machine"]
    parts = [
        "# The paper's tables and figures on the shipped model",
        f"    {_command(report)}\n    {COMMAND} --render benchmarks/results/paper.json",
        f"The second command made this page and its pictures from `paper.json` (commit"
        f" {report['commit'][:12]}, {report['date']}; {machine['processor']}, {machine['cores']}"
        f" cores, {config['threads']} threads, f32, {config['seconds'] / 60:.0f} minutes)."
        f" The model is {config['package']}, the problems are its own, and a paper's row stands"
        f" beside ours where there is one ({ABOUT}: LLaDA-8B-Instruct, GSM8K, one A100).",
        f"Block length {config['block_length']}, threshold {config['threshold']:g}, one request at"
        " a time. *tokens/s* counts every decoded position; *answer tokens/s* those up to"
        " end-of-text, the honest count where answers are shorter than what is decoded. *n* is the"
        " number of problems; a speed-up is of the time per answer, over the problems that both"
        " cells answered, in turn.",
    ]
    sections = {
        "1-2": _main_section,
        "3": _prompt_section,
        "4": _generation_section,
        "figure-4": _block_section,
        "figure-5": _policy_section,
    }
    for table, section in sections.items():
        if table in report["tables"]:
            parts += section(report["tables"][table])
            if table in pictures:
                parts.append(f"![{table}]({pictures[table]})")
    return "\n\n".join(parts) + "\n"


def _command(report: dict[str, Any]) -> str:
    """Return what measured: as it is in the report, or, in one that has none, by its counts."""
    names = [one for one in ("count", "naive_count", "long_count") if one in report["config"]]
    counts = [f" --{one.replace('_', '-')} {report['config'][one]}" for one in names]
    return str(report.get("command", f"{COMMAND}{''.join(counts)}"))


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(row: Row) -> str:
    return f"{100 * row['accuracy']:.1f} %"


def _measured(row: Row) -> list[str]:
    return [
        f"{row['answers']}",
        percent(row),
        f"{row['tokens_per_second']:.0f}",
        f"{row['answer_tokens_per_second']:.0f}",
        f"{row['passes']:.1f}",
        f"{row['pass_ms']:.1f}",
        f"{row['speed_up']:.1f}x",
    ]


MEASURED = ["n", "accuracy", "tokens/s", "answer tokens/s", "passes", "ms/pass", "speed-up"]


def _of_paper(mode: str, new_tokens: int) -> list[str]:
    found = PAPER_MAIN.get(mode, {}).get(new_tokens)
    if found is None:
        return ["", "", ""]
    accuracy, speed = found
    return [f"{accuracy} %", f"{speed}", f"{speed / PAPER_MAIN['baseline'][new_tokens][1]:.1f}x"]


def _main_section(rows: list[Row]) -> list[str]:
    parts = ["## Tables 1 and 2: cache and parallel decoding"]
    for new_tokens, theirs in zip(
        dict.fromkeys(row["new_tokens"] for row in rows), PAPER_LENGTHS, strict=False
    ):
        chosen = [row for row in rows if row["new_tokens"] == new_tokens]
        parts.append(f"{new_tokens} new tokens, beside the paper's {theirs}:")
        lines = [[row["mode"], *_measured(row), *_of_paper(row["mode"], theirs)] for row in chosen]
        header = ["", *MEASURED, "paper: accuracy", "tokens/s", "speed-up"]
        parts.append(grid(header, lines))
    return [*parts, _main_words(rows)]


def _main_words(rows: list[Row]) -> str:
    """Tell how the shape compares with the paper's, at the shortest generation."""
    find = {(row["mode"], row["new_tokens"]): row for row in rows}
    lengths = list(dict.fromkeys(row["new_tokens"] for row in rows))
    fast, both, dual = (
        find[mode, lengths[0]] for mode in ("+parallel", "+both, prefix", "+both, dual")
    )
    theirs = {mode: cells[PAPER_LENGTHS[0]][1] for mode, cells in PAPER_MAIN.items()}
    caches = [
        f"{find['+cache, prefix', length]['speed_up']:.2f}x (prefix) and"
        f" {find['+cache, dual', length]['speed_up']:.2f}x (dual) at {length} new tokens"
        for length in lengths
    ]
    return (
        f"At {lengths[0]} new tokens parallel decoding alone is {fast['speed_up']:.1f}x the"
        f" baseline (the paper: {theirs['+parallel'] / theirs['baseline']:.1f}x), and a prefix"
        f" cache beside it {both['tokens_per_second'] / fast['tokens_per_second']:.2f}x that (the"
        f" paper: {theirs['+both, prefix'] / theirs['+parallel']:.1f}x). The shapes differ with the"
        f" tokens per pass: {fast['tokens_per_pass']:.1f} here, about"
        f" {PAPER_TOKENS_PER_STEP[0.9]:g} of LLaDA-8B on GSM8K. The first pass of a block fills the"
        " cache, and no cache makes it shorter: of the"
        f" {dual['passes']:.1f} passes of *+both, dual*"
        f" {-(-lengths[0] // dual['block_length'])} are such. One token per pass, a cache is"
        f" {'; '.join(caches)}. *stops* ends at the block that holds end-of-text, which the paper's"
        " runs never do."
    )


def _long_table(rows: list[Row], first: str, key: str) -> str:
    lines = [
        [f"{row[key]}", f"{row['prompt_tokens']:.0f}", row["mode"], *_measured(row)] for row in rows
    ]
    return grid([first, "prompt tokens", "mode", *MEASURED], lines)


def _paper_long(chosen: Sequence[tuple[int, int]]) -> str:
    lines = []
    for shots, new_tokens in chosen:
        cells = PAPER_LONG[shots, new_tokens]
        slowest = cells[0][1]
        told = [f"{a} % / {speed} ({speed / slowest:.1f}x)" for a, speed in cells]
        lines.append([f"{shots}-shot, {new_tokens}", *told])
    modes = ["baseline", "parallel", "parallel, prefix", "parallel, dual"]
    return grid(["paper: accuracy / tokens/s", *modes], lines)


def _dual_over_prefix(rows: list[Row], key: str) -> str:
    """Tell how much faster dual is than prefix, by the value of a key."""
    speed = {(row[key], row["mode"]): row["tokens_per_second"] for row in rows}
    values = dict.fromkeys(row[key] for row in rows)
    ratios = [
        f"{speed[value, 'parallel, dual'] / speed[value, 'parallel, prefix']:.2f} at {value}"
        for value in values
    ]
    return ", ".join(ratios)


def _growth(rows: list[Row], key: str) -> str:
    """Tell how a pass grows from the first value of a key to the last, by mode."""
    cost = {(row[key], row["mode"]): row["pass_ms"] for row in rows}
    first, last = rows[0][key], rows[-1][key]
    told = [
        f"{cost[last, mode] / cost[first, mode]:.1f} times with {name}"
        for mode, name in (
            ("parallel", "no cache"),
            ("parallel, prefix", "the prefix cache"),
            ("parallel, dual", "dual"),
        )
    ]
    return ", ".join(told)


def _prompt_section(rows: list[Row]) -> list[str]:
    first, last = rows[0]["shots"], rows[-1]["shots"]
    return [
        "## Table 3: prefix against dual over growing prompts",
        f"{rows[0]['new_tokens']} new tokens; solved examples stand before the question, in one"
        " prompt. Eight do not fit the model's context of 512.",
        _long_table(rows, "shots", "shots"),
        _paper_long([(5, 1024), (8, 1024)]),
        f"Dual over prefix, tokens/s by shots: {_dual_over_prefix(rows, 'shots')}."
        " The model was trained on single questions, on canvases of 96 and 128 tokens, and has"
        " never seen an example before its question: accuracy, and with it passes and tokens/s in"
        " parallel, are those of a model outside its training. From"
        f" {first} shots to {last} a pass in parallel grows {_growth(rows, 'shots')}; with a cache"
        " that is a mean over the first pass of a block, which is full, and those behind it, and"
        " an unsure model makes more of the latter.",
    ]


def _generation_section(rows: list[Row]) -> list[str]:
    theirs = ", ".join(
        f"{PAPER_LONG[8, length][3][1] / PAPER_LONG[8, length][2][1]:.2f} at {length}"
        for length in (256, 512, 1024)
    )
    return [
        "## Table 4: prefix against dual over growing generations",
        _long_table(rows, "new tokens", "new_tokens"),
        _paper_long([(8, 256), (8, 512), (8, 1024)]),
        f"Dual over prefix, tokens/s by new tokens: {_dual_over_prefix(rows, 'new_tokens')}; in the"
        f" paper {theirs}. A prefix step feeds everything behind the block once more, a dual step"
        " the block alone. Beyond 128 tokens, prompt included, the model is outside its training:"
        " an accuracy there is to be compared with the baseline's beside it.",
    ]


def _block_section(rows: list[Row]) -> list[str]:
    lines = [
        [f"{row['block_length']}", row["mode"], *_measured(row)]
        for row in sorted(rows[1:], key=lambda row: (row["mode"], row["block_length"]))
    ]
    return [
        "## Figure 4: block length",
        grid(["block length", "mode", *MEASURED], lines),
        "The paper's curves (plotted only): small blocks are the most accurate and pay for their"
        " refreshes, large ones lose accuracy to a stale cache, 32 was chosen (3.3 times the"
        f" baseline). {_block_words(rows[1:])}",
    ]


def _block_words(rows: list[Row]) -> str:
    """Tell where each curve is highest, and what a block takes in parallel."""
    modes = {mode: [row for row in rows if row["mode"] == mode] for mode in ("prefix", "dual")}
    fastest = [
        f"{max(chosen, key=lambda row: float(row['tokens_per_second']))['block_length']} ({mode})"
        for mode, chosen in modes.items()
    ]
    together = [row for row in rows if row["mode"] == "parallel, dual"]
    passes = [
        f"{row['passes'] * row['block_length'] / row['new_tokens']:.2f} at {row['block_length']}"
        for row in together
    ]
    accuracy = [
        f"{percent(chosen[0])} and {percent(chosen[-1])} ({chosen[0]['answers']} problems, {name})"
        for chosen, name in ((modes["dual"], "one token per pass"), (together, "in parallel"))
    ]
    return (
        "Small blocks refresh often, large ones feed more rows per step: one token per pass,"
        f" tokens/s is highest at block length {' and '.join(fastest)}. In parallel with the dual"
        f" cache a block takes so many passes: {', '.join(passes)}. With it"
        f" accuracy at block lengths {together[0]['block_length']} and"
        f" {together[-1]['block_length']} is {', '.join(accuracy)}; the picture has the intervals."
    )


def _policy_section(rows: list[Row]) -> list[str]:
    lines = []
    for row in rows[1:]:
        ((name, value),) = row["rule"].items()
        theirs = PAPER_TOKENS_PER_STEP.get(value) if name == "threshold" else None
        lines.append(
            [
                f"{name} {value:g}",
                f"{row['answers']}",
                percent(row),
                f"{row['tokens_per_pass']:.2f}",
                f"{row['passes']:.1f}",
                f"{row['tokens_per_second']:.0f}",
                f"{row['speed_up']:.1f}x",
                "" if theirs is None else f"{theirs:g}",
            ]
        )
    header = ["rule", "n", "accuracy", "tokens per pass", "passes", "tokens/s", "speed-up"]
    return [
        "## Figure 5: confidence against a fixed number of tokens per pass",
        f"Dual cache, {rows[1]['new_tokens']} new tokens in blocks of {rows[1]['block_length']},"
        " shorter than the paper's, so that this model errs often enough for rules to differ.",
        grid([*header, "paper: tokens per pass"], lines),
        " ".join(filter(None, (_fixed_words(rows[1:]), _room(rows)))),
    ]


def _fixed_words(rows: list[Row]) -> str:
    """Set each fixed number of tokens per pass against thresholds that give as many."""
    told = []
    for row in (row for row in rows if row["mode"] == "steps_per_block"):
        as_fast = [
            one
            for one in rows
            if one["mode"] == "threshold" and one["tokens_per_pass"] >= row["tokens_per_pass"]
        ]
        if as_fast:
            best = max(as_fast, key=lambda one: float(one["accuracy"]))
            told.append(
                f"{percent(best)} ({best['rule']['threshold']:g}) against {percent(row)} at"
                f" {row['tokens_per_pass']:g}"
            )
    if not told:
        return ""
    return (
        "The most accurate threshold that decodes at least as many tokens per pass as a fixed"
        f" number: {'; '.join(told)}."
    )


def _room(rows: list[Row]) -> str:
    """Tell how much the rules that are bolder than the paper's threshold could win."""
    usual = next((row for row in rows if row["rule"] == {"threshold": 0.9}), None)
    if usual is None:
        return ""
    block, reached = usual["block_length"], usual["tokens_per_pass"]
    return (
        "In the paper the factor rule wins where the threshold holds back: 78.5 tokens/s against"
        f" 54.4 of threshold 0.9. Here threshold 0.9 gives {reached:.1f} of at most {block} tokens"
        f" per pass: no rule can give more than {100 * (block / reached - 1):.0f} % beyond it."
    )
