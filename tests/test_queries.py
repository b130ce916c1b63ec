"""Alerts and workbook: Microsoft's parser finds every name of their queries in the documented tables."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.missing_tools import leave_out

ROOT = Path(__file__).parent.parent
NODE_PARTS = ROOT / ".node"
QUERIES = sorted((ROOT / "infra" / "queries").rglob("*.kql"))
SNAPSHOTS = sorted((ROOT / "tests" / "infra").glob("*.snapshot.json"))
FENCED = re.compile(r"^```kusto\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TABLES = tomllib.loads((ROOT / "tests" / "infra" / "tables.toml").read_text(encoding="utf-8"))
DOCUMENTED = {
    f"{page.name}, query {number}": query
    for page in sorted((ROOT / "docs").glob("*.md"))
    for number, query in enumerate(FENCED.findall(page.read_text(encoding="utf-8")), 1)
}
# A wrong name, the right one in its place, and what the parser says.
PLANTED = {
    "CallerIPAddress": ("CallerIpAddress", "'CallerIPAddress' does not refer to any known column"),
    "StatusCode == 403": ("HttpStatusCode == 403", "'StatusCode' does not refer to any known column"),
    "AzkvAuditLogs": ("AZKVAuditLogs", "'AzkvAuditLogs' does not refer to any known table"),
    "nosuch(Identity)": ("Identity", "'nosuch' does not refer to any known function"),
    "were HttpStatusCode": ("where HttpStatusCode", "Query operator expected"),
}
NUMBERS = {"int", "long", "real", "decimal"}


@dataclass(frozen=True)
class Bound:
    """What the parser says against a query, and the type of each column that the query returns."""

    problems: tuple[str, ...]
    columns: Mapping[str, str]


def bind(queries: Mapping[str, str]) -> dict[str, Bound]:
    if not (NODE_PARTS / "node_modules" / "@kusto").exists():
        leave_out("no Kusto parser: install Node, then `make test` installs it in .node")
    given = {
        "tables": {name: " ".join(table["columns"].split()) for name, table in TABLES.items()},
        "queries": [{"name": name, "text": text} for name, text in queries.items()],
    }
    done = subprocess.run(
        ["node", str(ROOT / "tests/node/bind_queries.js"), str(NODE_PARTS)],
        input=json.dumps(given), capture_output=True, text=True, check=True, timeout=300,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return {line["name"]: Bound(tuple(line["problems"]), line["columns"]) for line in lines}


def list_deployed(snapshot: Path, kind: str) -> Iterator[Mapping[str, Any]]:
    for resource in json.loads(snapshot.read_text(encoding="utf-8"))["predictedResources"]:
        if resource["type"] == f"Microsoft.Insights/{kind}":
            yield resource["properties"]


def list_alerts(snapshot: Path) -> dict[str, Mapping[str, Any]]:
    """The one criterion of each alert that reads the workspace."""
    alerts: dict[str, Mapping[str, Any]] = {}
    for properties in list_deployed(snapshot, "scheduledQueryRules"):
        (alerts[properties["displayName"]],) = properties["criteria"]["allOf"]
    return alerts


def list_workbook_queries(snapshot: Path) -> dict[str, str]:
    """Each part's query, with the values that the boxes begin with in place of their names."""
    (workbook,) = list_deployed(snapshot, "workbooks")
    items = json.loads(workbook["serializedData"])["items"]
    boxes = {box["name"]: box["value"] for item in items for box in item["content"].get("parameters", ())}
    return {
        item["name"]: re.sub(r"\{(\w+)\}", lambda name: boxes[name[1]], item["content"]["query"])
        for item in items
        if "query" in item["content"]
    }


def list_queries(snapshot: Path) -> dict[str, str]:
    alerts = {title: criterion["query"] for title, criterion in list_alerts(snapshot).items()}
    return alerts | list_workbook_queries(snapshot)


def find_measure_problems(criterion: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    """An alert counts rows, or it measures a column with a number in it."""
    column = criterion["metricMeasureColumn"]
    if column is None:
        return (
            [] if criterion["timeAggregation"] == "Count" else ["it measures no column, so it can only count"]
        )
    return [] if columns.get(column) in NUMBERS else [f"no number in the column {column}"]


def test_every_name_in_a_query_is_documented() -> None:
    queries = {
        f"{path.name}: {name}": text for path in SNAPSHOTS for name, text in list_queries(path).items()
    }
    last_poll = (ROOT / "infra" / "queries" / "last-poll.kql").read_text(encoding="utf-8")
    queries |= DOCUMENTED
    queries["last poll"] = last_poll.replace("SINCE", "2026-11-27T18:19:09Z")
    bound = bind(queries)
    assert {name: query.problems for name, query in bound.items() if query.problems} == {}
    assert {"audit.md, query 1", "operations.md, query 1"} <= set(bound)
    for path in SNAPSHOTS:
        for title, criterion in list_alerts(path).items():
            assert find_measure_problems(criterion, bound[f"{path.name}: {title}"].columns) == [], title


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda path: path.name.removesuffix(".snapshot.json"))
def test_no_query_of_an_alert_or_the_workbook_is_left_out(snapshot: Path) -> None:
    files = [path for path in QUERIES if path.parent.name in {"alerts", "workbook"}]
    assert len(list_queries(snapshot)) == len(files)


def test_a_wrong_name_in_a_query_is_caught() -> None:
    query = (ROOT / "infra" / "queries" / "alerts" / "vault-access-denied.kql").read_text(encoding="utf-8")
    bound = bind({wrong: query.replace(right, wrong) for wrong, (right, _) in PLANTED.items()})
    for wrong, (right, complaint) in PLANTED.items():
        assert right in query
        assert complaint in " ".join(bound[wrong].problems), wrong


def test_a_measure_that_never_has_a_value_is_caught() -> None:
    measured = {"metricMeasureColumn": "hours", "timeAggregation": "Maximum"}
    assert find_measure_problems(measured, {"hours": "real"}) == []
    assert find_measure_problems(measured, {"hour": "real"})
    assert find_measure_problems(measured, {"hours": "string"})
    assert find_measure_problems({"metricMeasureColumn": None, "timeAggregation": "Maximum"}, {})


@pytest.mark.parametrize("name", TABLES)
def test_a_table_names_its_source(name: str) -> None:
    assert TABLES[name]["source"].endswith(f"/azure-monitor-ref/tables/includes/{name.lower()}-include.md")
