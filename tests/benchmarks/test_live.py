"""The table of what live outputs cost is the saved run."""

import json

from paths import ROOT


def test_the_table_is_the_saved_run() -> None:
    saved = json.loads((ROOT / "benchmarks" / "results" / "live.json").read_text())
    page = (ROOT / "docs" / "live.md").read_text()
    rows = {(row["output"], row["size"]): row for row in saved["rows"]}
    for output in dict.fromkeys(name for name, _ in rows):
        cells = [output if output != "json" else "JSON"]
        for size in ("480x360", "1280x720"):
            row = rows[output, size]
            cells += [f"{row['fps']:.1f}", f"{100 * row['share']:.0f} %"]
        assert f"| {' | '.join(cells)} |" in page
