"""The picture of what is deployed, docs/azure.svg, drawn from the stored prediction of a plain deployment."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

SNAPSHOT = "tests/infra/plain.snapshot.json"
WIDTH, HEIGHT, ROWS = 960, 548, 6
BOX_WIDTH, BOX_HEIGHT = 250, 58
LEFT, MIDDLE, RIGHT, TOP, STEP = 24, 355, 686, 64, 78

# Where each kind of resource is, by its place in its column, with what it does for the agent.
APP, COLUMN = "Microsoft.Web/sites", (LEFT, RIGHT)
PLACES: Mapping[str, tuple[int, int, str, str]] = {
    "Microsoft.ServiceBus/namespaces": (1, 0, "Service Bus", "queue of work items"),
    "Microsoft.Storage/storageAccounts": (1, 1, "Storage", "ledger in tables, package, leases"),
    "Microsoft.KeyVault/vaults": (1, 2, "Key Vault", "keys, secrets, channels' addresses"),
    "Microsoft.CognitiveServices/accounts": (1, 3, "Azure OpenAI", "models, shields against attacks"),
    "Microsoft.OperationalInsights/workspaces": (
        1,
        4,
        "Log Analytics",
        "Application Insights, workbook, alerts",
    ),
    "Microsoft.ManagedIdentity/userAssignedIdentities": (0, 4, "Managed identity", "signs in everywhere"),
    "Microsoft.Insights/actionGroups": (0, 5, "Action group", "alerts, cost budget"),
}
FUNCTIONS = (
    "poll_inboxes",
    "process_email",
    "track_replies",
    "notify_people",
    "receive_webhook",
    "ask_agent",
    "report",
    "review",
    "health",
)
PARTNERS: Sequence[tuple[int, str, str]] = (
    (0, "MultiMail", "mail in, replies for approval"),
    (1, "Reviewer", "decides at the desk, or in MultiMail"),
    (2, "Operator", "asks, reads the trust report"),
    (3, "Teams, Slack", "notifications, where profiles say so"),
)
STYLE = (
    "<style>text{font:13px system-ui,sans-serif;fill:#24292f}.t{font-weight:600}"
    ".s{fill:#57606a;font-size:12px}.b{fill:#fff;stroke:#1b646b;stroke-width:1.5}.x{fill:#f6f6f4;stroke:#999}.a{fill:#e3f0ef}"
    "path{stroke:#1b646b;fill:none;stroke-width:1.4}</style>"
)


def render_azure_picture(root: Path) -> str:
    """Draw the deployment. Raises ValueError when a kind of resource that has a place is not deployed."""
    resources: list[dict[str, Any]] = json.loads((root / SNAPSHOT).read_text(encoding="utf-8"))[
        "predictedResources"
    ]
    missing = {APP, *PLACES} - {resource["type"] for resource in resources}
    if missing:
        raise ValueError(f"{SNAPSHOT} has no {', '.join(sorted(missing))}")
    title = "What a deployment of the MultiMail agent creates in Azure"
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'role="img" aria-label="{title}">',
        STYLE,
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="12" fill="#fbfbf9"/>',
        f'<text class="t" x="{LEFT}" y="34">{title}</text>',
    ]
    height = ROWS * STEP - (STEP - BOX_HEIGHT)
    for column, place, name, purpose in [*PLACES.values(), *((0, *partner) for partner in PARTNERS)]:
        y = TOP + place * STEP
        is_outside = (place, name, purpose) in PARTNERS
        start, end = (LEFT + BOX_WIDTH, MIDDLE) if column == 0 else (MIDDLE + BOX_WIDTH, RIGHT)
        if name == "Reviewer":  # who approves in MultiMail; the app has the evidence
            lines.append(f'<path d="M{LEFT + BOX_WIDTH // 2} {y}V{y - STEP + BOX_HEIGHT}"/>')
        if name != "Action group":  # Log Analytics calls it
            lines.append(f'<path d="M{start} {y + BOX_HEIGHT // 2}H{end}"/>')
        lines += _draw_box(COLUMN[column], y, BOX_HEIGHT, "b x" if is_outside else "b", [name, purpose])
    lines += _draw_box(
        MIDDLE, TOP, height, "b a", ["Function app", "Flex Consumption, Python", "", *FUNCTIONS]
    )
    return "\n".join([*lines, "</svg>"]) + "\n"


def _draw_box(x: int, y: int, height: int, style: str, texts: Sequence[str]) -> list[str]:
    box = f'<rect class="{style}" x="{x}" y="{y}" width="{BOX_WIDTH}" height="{height}" rx="9"/>'
    rows = [(number, escape(text)) for number, text in enumerate(texts) if text]
    return [
        box,
        *(
            f'<text class="{"s" if number else "t"}" x="{x + 14}" y="{y + 24 + 20 * number}">{text}</text>'
            for number, text in rows
        ),
    ]
