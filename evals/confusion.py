"""Draws the category confusion matrix as an SVG that is legible on light and dark ground."""

from collections.abc import Sequence

from evals.metrics import Confusion

CELL, LABEL, TOP = 46, 92, 84  # pixels: a cell's side, the room for row labels, and for column labels
STRONG = 0.55  # a cell filled more than this takes the contrasting ink

_STYLE = """
.cm text { font: 12px system-ui, sans-serif; fill: #1c2321 }
.cm .soft { fill: #56605c } .cm .cell { fill: #17646d } .cm .miss { fill: #a8302d } .cm .strong { fill: #fff }
.cm .edge { fill: none; stroke: #b9c2bd }
@media (prefers-color-scheme: dark) {
.cm text { fill: #e8edea } .cm .soft { fill: #a3b0ab } .cm .cell { fill: #7cc7cb } .cm .miss { fill: #f2a29d }
.cm .strong { fill: #0c2224 } .cm .edge { stroke: #48544f } }
"""


def draw_confusion(confusion: Confusion, categories: Sequence[str]) -> str:
    """The picture: a row per expected category, a column per found one, shaded by the row's shares."""
    width, height = LABEL + CELL * len(categories) + 12, TOP + CELL * len(categories) + 12
    rights = sum(count for (wanted, found), count in confusion.items() if wanted == found)
    total = sum(confusion.values())
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="cm" viewBox="0 0 {width} {height}" width="{width}" '
        f'role="img" aria-labelledby="cm-title cm-desc"><title id="cm-title">Categories, expected and found'
        f'</title><desc id="cm-desc">{rights} of {total} emails lie on the diagonal. '
        f"{_describe_misses(confusion)}</desc><style>{_STYLE}</style>",
        f'<text class="soft" x="{LABEL}" y="14">found →</text>'
        f'<text class="soft" x="4" y="{TOP - 8}">expected ↓</text>',
    ]
    for number, name in enumerate(categories):
        x, y = LABEL + CELL * number + CELL // 2, TOP + CELL * number + CELL // 2 + 4
        parts.append(f'<text transform="translate({x - 2} {TOP - 8}) rotate(-40)">{name}</text>')
        parts.append(f'<text x="{LABEL - 8}" y="{y}" text-anchor="end">{name}</text>')
    for row, wanted in enumerate(categories):
        in_row = sum(confusion.get((wanted, found), 0) for found in categories)
        for column, found in enumerate(categories):
            count = confusion.get((wanted, found), 0)
            x, y = LABEL + CELL * column, TOP + CELL * row
            parts.append(_draw_cell(x, y, count, count / in_row if in_row else 0.0, is_right=row == column))
    return "\n".join([*parts, "</svg>"])


def _draw_cell(x: int, y: int, count: int, filled: float, *, is_right: bool) -> str:
    edge = f'<rect class="edge" x="{x}" y="{y}" width="{CELL}" height="{CELL}"/>'
    if count == 0:
        return edge
    fill = f'<rect class="{"cell" if is_right else "miss"}" x="{x}" y="{y}" width="{CELL}" height="{CELL}"'
    ink = ' class="strong"' if filled > STRONG else ""
    middle = f'x="{x + CELL // 2}" y="{y + CELL // 2 + 4}" text-anchor="middle"'
    opacity = 0.85 + filled * 0.15 if filled > STRONG else 0.08 + filled * 0.45  # the ink stays legible
    return f'{fill} fill-opacity="{opacity:.2f}"/>{edge}<text {middle}{ink}>{count}</text>'


def _describe_misses(confusion: Confusion) -> str:
    """The most frequent mistakes in words, for readers who cannot see the picture."""
    misses = [(count, pair) for pair, count in confusion.items() if pair[0] != pair[1]]
    worst = sorted(misses, key=lambda miss: (-miss[0], miss[1]))[:5]
    return " ".join(f"{count} times {wanted} was taken for {found}." for count, (wanted, found) in worst)
