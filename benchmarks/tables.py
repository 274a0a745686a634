"""Write `docs/benchmarks.md` from the results that were measured last.

    palaestra bench --json benchmarks/results && python benchmarks/tables.py

A ratio says how many times as fast ours is as the peer in the same line, or row; it is that of the
medians. Beside it stand the least and the greatest ratio of a single round.
"""

import ast
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE / "results"
PAGE = HERE.parent / "docs" / "benchmarks.md"
ELSEWHERE = {
    "xeon": "earlier, on an Intel Xeon",
    "slower": "earlier, on an AMD EPYC that is slower",
}
"""What the folders of other machines are called."""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(RESULTS))


def page(results: Path) -> str:
    """Return the page of the result files in a folder, and those of other machines below it."""
    parts = ["# Benchmarks", _head(__doc__).rpartition("\n\n")[2]]
    for path in sorted(results.glob("*.json")):
        document = _head(
            ast.get_docstring(ast.parse((HERE / path.with_suffix(".py").name).read_text()))
        )
        table = {"text": _crossed, "learning": _areas}.get(path.stem, _lines)
        parts += [f"## {path.stem}", document]
        for measured in (path, *sorted(results.glob(f"*/{path.name}"))):
            if measured != path:
                parts.append(f"### {path.stem}, {ELSEWHERE[measured.parent.name]}")
            found = json.loads(measured.read_text())
            parts += [_measured(found["machine"]), table(found["results"])]
    return "\n\n".join(parts) + "\n"


def _head(document: str | None) -> str:
    """Return a docstring without the command in it."""
    paragraphs = (document or "").strip().split("\n\n")
    return "\n\n".join(p for p in paragraphs if not p.startswith("    "))


def _measured(machine: dict[str, Any]) -> str:
    """Return on what was measured: the machine, our libraries, those of peers with their own."""
    peers = {k: v for k, v in machine.items() if isinstance(v, dict) and k != "versions"}
    beside = "".join(f"; {name} with {listed(found)}" for name, found in peers.items())
    return f"Measured on {machine['machine']}, with {listed(machine['versions'])}{beside}."


def listed(found: dict[str, str]) -> str:
    """Write versions of libraries."""
    return ", ".join(f"{name} {version}" for name, version in found.items())


def amount(row: dict[str, Any]) -> str:
    """Write how much was done in a second, or how long one took where that was less than one."""
    if row["per_second"] < 1:
        return f"one in {1 / row['per_second']:.1f} s"
    digits = 0 if row["per_second"] >= 100 else 1
    return f"{row['per_second']:,.{digits}f} {row['unit']}"


def _lines(rows: list[dict[str, Any]]) -> str:
    """Return a table with a line for each peer."""
    table = [
        "| what | peer | ratio | in a round | ours, a second | theirs |",
        "|---|---|---:|---:|---:|---:|",
    ]
    ours: dict[str, Any] = {}
    for row in rows:
        if row["ratio"] == 1:
            ours = row
            continue
        speeds = " | ".join(amount(r) for r in (ours, row))
        rounds = [b / a for a, b in zip(ours["seconds"], row["seconds"], strict=True)]
        spread = f"{min(rounds):.1f} to {max(rounds):.1f}" if len(rounds) > 1 else "once"
        cells = f"{row['what']} | {row['contestant']} | {row['ratio']:.1f}x | {spread}"
        table.append(f"| {cells} | {speeds} |")
    return "\n".join(table)


def _areas(rows: list[dict[str, Any]]) -> str:
    """Return a table of areas under learning curves, each with its interval."""
    table = ["| what | seeds | ours | SB3's | difference |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        ours, theirs = ("{:.1f} ({:.1f} to {:.1f})".format(*row[k]) for k in ("ours", "theirs"))
        share = "{:+.1%} ({:+.1%} to {:+.1%})".format(*row["difference"])
        table.append(f"| {row['what']} | {row['seeds']} | {ours} | {theirs} | {share} |")
    return "\n".join(table)


def _crossed(rows: list[dict[str, Any]]) -> str:
    """Return a table with a column for each way to step N environments."""
    mine = [row for row in rows if row["contestant"].startswith("palaestra")]
    columns = list(dict.fromkeys((row["mode"], row["n"]) for row in mine))
    names = [f"{mode}, N={n}" if n > 1 else mode for mode, n in columns]
    table = [f"| | {' | '.join(names)} |", "|---|" + "---:|" * len(columns)]
    of = {(row["contestant"], row["mode"], row["n"]): row for row in mine}
    for who in dict.fromkeys(row["contestant"] for row in mine):
        cells = [of[who, mode, n] for mode, n in columns]
        for peer in cells[0]["over"]:
            ratios = " | ".join(f"{cell['over'][peer]:.2f}x" for cell in cells)
            table.append(f"| {who} over {peer} | {ratios} |")
        speeds = " | ".join(f"{cell['steps_per_second']:,.0f}" for cell in cells)
        table.append(f"| {who}, steps a second | {speeds} |")
    return "\n".join(table)


if __name__ == "__main__":
    main()
