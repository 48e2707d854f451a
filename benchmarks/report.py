"""The report of ``suite.py``: a table in Markdown, and a bar chart in SVG for each workload."""

import os
from html import escape

#: Where the README gets the table.
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"

#: The workloads of the README, and the chart that it shows.
README_TABLES = ("echo", "broadcast", "http", "redis-echo", "redis-broadcast")

OURS = "ours"

BAR_HEIGHT, BAR_WIDTH, LABEL_WIDTH, GAP = 18, 380, 300, 7


def number(value):
    return "{:,.0f}".format(value)


def _median(row, key):
    return row[key]["median"] if key in row else None


def _cell(row, key, places):
    value = _median(row, key)
    return "" if value is None else "{:,.{}f}".format(value, places)


def table_of(table):
    """The Markdown table of one workload: medians, with the smallest and the largest rate."""
    has_memory = any("kb" in row for row in table["rows"])
    heads = ["", table["unit"], "smallest to largest", "CPU µs for one", "p50 ms", "p99 ms"]
    heads += ["kB for one"] if has_memory else []
    lines = ["| %s |" % " | ".join(heads), "|---" + "|---:" * (len(heads) - 1) + "|"]
    for row in table["rows"]:
        title = "**%s**" % row["title"] if row["name"].startswith(OURS) else row["title"]
        if "rate" not in row:
            lines.append("| %s | no figure |%s" % (title, " |" * (len(heads) - 2)))
            continue
        cells = [
            title,
            _cell(row, "rate", 0),
            "%s to %s" % (number(row["rate"]["min"]), number(row["rate"]["max"])),
            _cell(row, "server_us", 1),
            _cell(row, "p50_ms", 2),
            _cell(row, "p99_ms", 2),
        ]
        cells += [_cell(row, "kb", 1)] if has_memory else []
        lines.append("| %s |" % " | ".join(cells))
    return "\n".join(lines)


def notes(data):
    machine = data["machine"]
    lines = [
        "Measured %s on %s, %d processors, %s, Python %s. Medians of up to %d rounds of %g s; the contenders "
        "of a workload take turns."
        % (
            data["date"],
            machine["processor"],
            machine["processors"],
            machine["platform"],
            machine["python"],
            max([row["rounds"] for table in data["tables"] for row in table["rows"]] or [0]),
            data["seconds"],
        ),
        "Server: uvicorn %s." % " ".join(data["options"]),
        "*CPU µs for one* is the processor time of all processes of a contender (Redis or the database "
        "included) for one message, delivery, request or cycle.",
    ]
    if data["others"] is not None:
        text = "Other programs used %d %% of the machine meanwhile" % round(100 * data["others"])
        lines.append(text + ("." if data["others"] < 0.05 else ": **these figures are noisy**."))
    if data["quick"]:
        lines.append("This was a quick run, of one round.")
    return lines


def markdown(data):
    parts = ["# Results\n", "\n".join(notes(data)) + "\n"]
    for table in data["tables"]:
        parts.append("## %s\n" % table["title"])
        parts.append(table_of(table) + "\n")
        parts.append("![%s](%s.svg)\n" % (table["title"], table["name"]))
    return "\n".join(parts)


def chart(table, width=LABEL_WIDTH + BAR_WIDTH + 110):
    """Return a bar chart of the rates as SVG, with the largest rate first in scale."""
    rows = [row for row in table["rows"] if "rate" in row]
    most = max([row["rate"]["median"] for row in rows] or [1])
    height = 52 + len(rows) * (BAR_HEIGHT + GAP)
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" role="img" '
        'font-family="sans-serif" font-size="13">' % (width, height, width, height),
        "<title>%s</title>" % escape(table["title"]),
        '<rect width="100%" height="100%" fill="#fff"/>',
        '<text x="8" y="22" font-size="15" font-weight="bold">%s</text>' % escape(table["title"]),
        '<text x="8" y="40" fill="#555">%s</text>' % escape(table["unit"]),
    ]
    for index, row in enumerate(rows):
        y = 50 + index * (BAR_HEIGHT + GAP)
        rate = row["rate"]
        length = max(1, round(BAR_WIDTH * rate["median"] / most))
        color = "#0c4b33" if row["name"].startswith(OURS) else "#9fb8ad"
        scale = BAR_WIDTH / most
        left, right = (
            LABEL_WIDTH + rate["min"] * scale,
            LABEL_WIDTH + min(rate["max"], most) * scale,
        )
        middle = y + BAR_HEIGHT / 2
        out += [
            '<text x="%d" y="%d" text-anchor="end">%s</text>'
            % (LABEL_WIDTH - 8, y + 14, escape(row["title"])),
            '<rect x="%d" y="%d" width="%d" height="%d" fill="%s"/>'
            % (LABEL_WIDTH, y, length, BAR_HEIGHT, color),
            '<path d="M%.1f %.1fH%.1f" stroke="#d33" stroke-width="1.5"/>' % (left, middle, right),
            '<text x="%.1f" y="%d">%s</text>'
            % (max(LABEL_WIDTH + length, right) + 6, y + 14, number(rate["median"])),
        ]
    return "\n".join([*out, "</svg>"]) + "\n"


def write(data, folder):
    """Write the table and the charts into `folder`."""
    with open(os.path.join(folder, "results.md"), "w", encoding="utf-8") as file:
        file.write(markdown(data))
    for table in data["tables"]:
        with open(os.path.join(folder, table["name"] + ".svg"), "w", encoding="utf-8") as file:
            file.write(chart(table))


def readme_part(data):
    """Return what stands between the markers of the README."""
    tables = {table["name"]: table for table in data["tables"]}
    parts = []
    for name in README_TABLES:
        if name in tables:
            parts += ["**%s**\n" % tables[name]["title"], table_of(tables[name]) + "\n"]
    if "broadcast" in tables:
        parts.append("![Broadcast to 1,000 sockets](benchmarks/results/broadcast.svg)\n")
    return "\n".join([*parts, " ".join(notes(data)) + "\n"])


def into_readme(data, path):
    """Replace what stands between the markers of the README."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    if BEGIN not in text or END not in text:
        raise SystemExit(
            "%s lacks the lines %s and %s: add them where the table must stand."
            % (path, BEGIN, END)
        )
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    with open(path, "w", encoding="utf-8") as file:
        file.write(before + BEGIN + "\n" + readme_part(data) + END + after)
