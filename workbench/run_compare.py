"""`pare compare RUN_A RUN_B` on captured statistics: B − A of every head or block, sorted by how large it is."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from analysis.roles import ROLES, TAU_S, TAU_T
from analysis.run_difference import comparable_statistics, run_difference
from analysis.runs import Run
from pare.errors import InputError
from pare.files import replacing
from pare.versions import versions

RATIO = "self/ratio"
SHOWN = 20
"""Rows that the text shows; JSON and CSV have all."""


def without_videos(a: str | Path, b: str | Path) -> bool:
    """Whether both are runs of which one at least has no video, so that only their statistics can be compared."""
    folders = [Path(place).expanduser() for place in (a, b)]
    if not all((folder / "run.json").is_file() for folder in folders):
        return False
    return not all(Run.open(folder).videos for folder in folders)


def compare_runs(
    a: str | Path,
    b: str | Path,
    *,
    statistic: str | None = None,
    branch: str | None = None,
    csv: str | Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """B − A of one statistic of two runs (default: the intra-slice ratio, else the first that both have).

    The numbers are those of `analysis.run_difference`; `csv` names a table of all heads or blocks to write. Raises
    `InputError` for runs that do not belong together and for a statistic that one of them lacks.
    """
    left, right = (Run.open(Path(place).expanduser()) for place in (a, b))
    known = comparable_statistics(left, right)
    if statistic is None:
        statistic = next((name for name in (RATIO, *known) if name in known), RATIO)
    elif statistic not in known and statistic in {
        *comparable_statistics(left, left),
        *comparable_statistics(right, right),
    }:
        # One of them has it: which of them lacks it is said there.
        pass
    elif statistic not in known:
        raise InputError(
            "--statistic", got=statistic, expected=f"one of {', '.join(known)}", fix=f"--statistic {RATIO}"
        )
    found = run_difference(left, right, statistic, branch=branch, seed=seed)
    table = found.table()
    if csv is not None:
        with replacing(csv) as temporary:
            table.to_csv(temporary, index=False)
    roles = None
    if statistic == RATIO:
        changed = found.role_changes()
        roles = {"tau_s": TAU_S, "tau_t": TAU_T, "changed": changed.to_dict("records")}
    return {
        "a": str(a),
        "b": str(b),
        "models": {"a": left.model_id, "b": right.model_id},
        "statistic": statistic,
        "branches": list(found.match.branches if branch is None else (branch,)),
        "paired": found.paired,
        "n": int(found.n.max(initial=0)),
        "prompts": found.prompts,
        "only_a": found.match.only_a,
        "only_b": found.match.only_b,
        "differs": {name: list(values) for name, values in found.match.differs.items()},
        "absent_a": int(found.absent_a.sum()),
        "absent_b": int(found.absent_b.sum()),
        "clear": int(found.clear.sum()),
        "clear_by_chance": found.expected_by_chance,
        "bootstrap_seed": seed,
        "roles": roles,
        "rows": table.to_dict("records"),
        "versions": versions(),
        "csv": None if csv is None else str(csv),
    }


def render(result: Mapping[str, Any]) -> str:
    """The result for people: what differs in how they were made, then the largest differences."""
    lines = [f"{side.upper()}  {result[side]} ({result['models'][side]})" for side in ("a", "b")]
    if result["paired"]:
        lines.append(f"{result['n']} sample(s) paired by prompt and seed, {result['prompts']} prompt(s)")
        lines += [
            f"{result[f'only_{side}']} sample(s) of {side.upper()} have no partner"
            for side in ("a", "b")
            if result[f"only_{side}"]
        ]
    else:
        lines.append("not paired: no sample of the same prompt and seed, so the means of all samples are compared")
    for name, (ours, theirs) in result["differs"].items():
        lines.append(f"{name} differs: {_short(ours)} and {_short(theirs)}")
    heads = "head" in (result["rows"][0] if result["rows"] else {})
    units = "heads" if heads else "blocks"
    for side in ("a", "b"):
        if result[f"absent_{side}"]:
            lines.append(f"{result[f'absent_{side}']} {units} are absent in {side.upper()}")
    place = "block  head" if heads else "block"
    lines += ["", f"{result['statistic']}", f"{place:<13}{'n':>5}{'A':>10}{'B':>10}{'B − A':>11}   95 % over prompts"]
    lines += [_line(row) for row in result["rows"][:SHOWN]]
    if len(result["rows"]) > SHOWN:
        lines.append(f"and {len(result['rows']) - SHOWN} more {units} (--json or --csv has all)")
    if result["clear"]:
        chance = result["clear_by_chance"]
        lines += ["", f"* the interval leaves zero out: {result['clear']} {units}, about {chance:.2g} by chance"]
    if result["roles"] is not None:
        lines += ["", _role_words(result["roles"])]
    if result["csv"]:
        lines.append(f"written {result['csv']}")
    return "\n".join(lines)


def _line(row: Mapping[str, Any]) -> str:
    place = f"{row['block']:>5}" + (f"{row['head']:>6}" if "head" in row else "")
    missing = row["low"] != row["low"]
    interval = "–" if missing else f"{_number(row['low'], '+')} to {_number(row['high'], '+')}"
    values = f"{_number(row['a']):>10}{_number(row['b']):>10}{_number(row['difference'], '+'):>11}"
    return f"{place:<13}{row['n']:>5}{values}   {interval}{' *' if row['clear'] else ''}"


def _role_words(roles: Mapping[str, Any]) -> str:
    names = dict(zip("SMT", ROLES, strict=True))
    changed = roles["changed"]
    where = "; ".join(
        f"block {row['block']} head {row['head']} {names[row['role_a']]} to {names[row['role_b']]}"
        for row in changed[:SHOWN]
    )
    more = f" and {len(changed) - SHOWN} more" if len(changed) > SHOWN else ""
    return f"{len(changed)} heads change role at τs {roles['tau_s']}, τt {roles['tau_t']}" + (
        f": {where}{more}" if changed else ""
    )


def _number(value: float, sign: str = "") -> str:
    return f"{value:{sign}.3g}".replace("-", "−")


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "…"
