"""The infrastructure: what it would deploy, checked without a cloud, and its queries against the code."""

import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields
from difflib import unified_diff
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.documentation.settings_reference import find_parameter_name
from shared.domain import Outcome
from shared.ledger.table_store import TABLE
from shared.settings import Setting, Settings, declared_settings
from shared.watching.tracking import SETTLED, UNSETTLED
from tests.declared_functions import read_declared_functions
from tests.emitted_events import read_emitted_events
from tests.infra_rules import OPEN_PATHS, OPERATOR_ROLE, Deployment, find_problems, list_roles
from tests.missing_tools import leave_out
from tests.test_queries import DOCUMENTED

ROOT = Path(__file__).parent.parent
INFRA = ROOT / "infra"
SNAPSHOTS = sorted((ROOT / "tests" / "infra").glob("*.snapshot.json"))
BICEP_FILES = sorted([*INFRA.rglob("*.bicep"), *ROOT.glob("tests/infra/*.bicepparam")])
QUERIES = sorted((INFRA / "queries").rglob("*.kql"))
EVENTS = read_emitted_events()
SETTINGS = tuple(declared_settings().values())


# Parts


def find_bicep() -> list[str]:
    if os.environ.get("BICEP"):
        return [os.environ["BICEP"]]
    if shutil.which("bicep"):
        return ["bicep"]
    if (
        shutil.which("az")
        and subprocess.run(["az", "bicep", "version"], capture_output=True, check=False).returncode == 0
    ):
        return [str(Path.home() / ".azure" / "bin" / "bicep")]
    leave_out("no Bicep compiler: set BICEP, or put bicep on PATH, or run az bicep install")


def bicep(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*find_bicep(), *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def read_settings_names() -> frozenset[str]:
    """The environment variables that the code reads: the declared settings, and the platform's identity."""
    return frozenset(setting.name for setting in SETTINGS) | {"IDENTITY_ENDPOINT"}


def deployment_of(snapshot: dict[str, Any]) -> Deployment:
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    return Deployment(snapshot, read_settings_names(), TABLE, host)


def read_snapshot(name: str) -> dict[str, Any]:
    path = ROOT / "tests" / "infra" / f"{name}.snapshot.json"
    snapshot: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return snapshot


def first(snapshot: dict[str, Any], kind: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        r for r in snapshot["predictedResources"] if r["type"] == f"Microsoft.{kind}"
    )
    return found


# The compiler


def build_copy(folder: Path, level: str, *, is_outdated: bool = False) -> subprocess.CompletedProcess[str]:
    """Build a copy of the infrastructure with every linter rule at this level, perhaps with an old API version."""
    shutil.copytree(INFRA, folder / "infra")
    shutil.copy(ROOT / "host.json", folder)
    config = folder / "infra" / "bicepconfig.json"
    config.write_text(config.read_text(encoding="utf-8").replace('"warning"', f'"{level}"'), encoding="utf-8")
    if is_outdated:
        module = folder / "infra" / "modules" / "identity.bicep"
        text = re.sub(
            r"(userAssignedIdentities)@[\d-]+", r"\1@2023-01-31", module.read_text(encoding="utf-8")
        )
        module.write_text(text, encoding="utf-8")
    return bicep("build", str(folder / "infra" / "main.bicep"), "--stdout")


def test_everything_builds_with_every_linter_rule_an_error(tmp_path: Path) -> None:
    built = build_copy(tmp_path, "error")
    assert (built.returncode, built.stderr) == (0, "")


def test_a_rule_that_time_breaks_warns_an_operator_and_fails_here(tmp_path: Path) -> None:
    """A newer compiler knows newer API versions: what builds today must build in two years."""
    rules = json.loads((INFRA / "bicepconfig.json").read_text(encoding="utf-8"))["analyzers"]["core"]["rules"]
    assert {rule["level"] for rule in rules.values()} == {"warning"}
    shipped = build_copy(tmp_path / "shipped", "warning", is_outdated=True)
    assert (shipped.returncode, "Warning use-recent-api-versions" in shipped.stderr) == (0, True)
    strict = build_copy(tmp_path / "strict", "error", is_outdated=True)
    assert (strict.returncode, "Error use-recent-api-versions" in strict.stderr) == (1, True)


def test_every_suppressed_rule_has_its_reason_beside_it() -> None:
    for path in BICEP_FILES:
        for line in path.read_text(encoding="utf-8").splitlines():
            if "#disable" in line:
                assert re.search(r"#disable-next-line [a-z-]+ // \w+", line), f"{path.name}: {line}"


@pytest.mark.parametrize("path", BICEP_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_is_formatted(path: Path) -> None:
    formatted = bicep("format", str(path), "--stdout").stdout
    assert formatted == path.read_text(encoding="utf-8"), f"run: bicep format {path.relative_to(ROOT)}"


def test_stored_snapshots_are_byte_for_byte_what_would_be_deployed(tmp_path: Path) -> None:
    program = find_bicep()[0]
    for part in ("infra", "scripts", "tests/infra"):
        shutil.copytree(ROOT / part, tmp_path / part)
    shutil.copy(ROOT / "host.json", tmp_path)
    settings = {"BICEP": program, "PYTHON": sys.executable}
    script = ["sh", str(tmp_path / "scripts" / "snapshot.sh"), "overwrite"]
    subprocess.run(script, check=True, capture_output=True, env=os.environ | settings)
    for path in SNAPSHOTS:
        stored = path.read_text(encoding="utf-8").splitlines()
        taken = (tmp_path / "tests" / "infra" / path.name).read_text(encoding="utf-8").splitlines()
        difference = "\n".join(unified_diff(stored, taken, "stored", "now", n=1, lineterm=""))
        assert not difference, f"review this, then run scripts/snapshot.sh overwrite\n{difference}"


def test_every_parameter_says_what_it_is() -> None:
    for path in INFRA.rglob("*.bicep"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for before, line in pairwise(lines):
            if line.startswith(("param ", "output ")):
                assert before.startswith("@description("), f"{path.name}: {line}"


def test_nothing_depends_on_time_or_chance_or_a_registry() -> None:
    for path in BICEP_FILES:
        assert not re.search(r"utcNow|newGuid|'br[:/]|'ts:", path.read_text(encoding="utf-8")), path.name


# The deployment


@pytest.mark.parametrize("path", SNAPSHOTS, ids=lambda path: path.name.removesuffix(".snapshot.json"))
def test_what_would_be_deployed_breaks_no_rule(path: Path) -> None:
    snapshot = json.loads(path.read_text(encoding="utf-8"))
    assert snapshot["diagnostics"] == []
    assert find_problems(deployment_of(snapshot)) == []


def test_there_is_a_snapshot_for_each_way_of_deploying() -> None:
    kinds = {path.name.removesuffix(".snapshot.json") for path in SNAPSHOTS}
    assert kinds == {"plain", "private-network", "existing-model"}
    existing = deployment_of(read_snapshot("existing-model"))
    assert not existing.of_type("Microsoft.CognitiveServices/accounts")
    assert existing.app_settings["MODEL_ENDPOINT"] == "https://oai-of-the-company.openai.azure.com"
    assert not existing.of_type("Microsoft.Insights/actionGroups")


def test_the_app_starts_with_the_settings_it_would_get_and_their_defaults_are_the_code_s() -> None:
    deployed = dict(deployment_of(read_snapshot("plain")).app_settings)
    deployed["KEY_VAULT_URL"] = "https://kv.vault.azure.net"  # its suffix is known in Azure only
    settings = Settings.from_env(deployed | {"IDENTITY_ENDPOINT": "http://127.0.0.1/token"})
    names = {"KEY_VAULT_URL", "MODEL_ENDPOINT", "TRIAGE_DEPLOYMENT"}
    bare = Settings.from_env({name: deployed[name] for name in names})
    given = {
        "managed_identity_client_id", "has_managed_identity", "draft_deployment",
        "service_bus_namespace", "ledger_table_endpoint", "storage_account",
    }  # fmt: skip
    differing = {f.name for f in fields(Settings) if getattr(settings, f.name) != getattr(bare, f.name)}
    assert differing == given


def test_every_name_that_a_trigger_resolves_is_an_app_setting() -> None:
    settings = deployment_of(read_snapshot("plain")).app_settings
    for bindings in read_declared_functions().values():
        for value in re.findall(r"%(\w+)%", json.dumps(bindings)):
            assert value in settings
        for binding in bindings:
            if "connection" in binding:
                assert f"{binding['connection']}__fullyQualifiedNamespace" in settings


def test_every_function_without_a_key_and_no_other_stays_open_behind_entra_id() -> None:
    triggers = [
        b for bindings in read_declared_functions().values() for b in bindings if b["type"] == "httpTrigger"
    ]
    assert sorted(OPEN_PATHS) == sorted(
        f"/api/{b['route']}" for b in triggers if b["authLevel"] == "ANONYMOUS"
    )
    for name, is_closed in (("private-network", True), ("plain", False)):
        (sign_in,) = (
            config
            for config in deployment_of(read_snapshot(name)).of_type("Microsoft.Web/sites/config")
            if config["name"].endswith("/authsettingsV2")
        )
        # Said in both cases: what is not said would stay as it was.
        assert sign_in["properties"]["platform"] == {"enabled": is_closed}


def test_the_operator_may_store_secrets_and_nobody_does_where_none_is_named() -> None:
    plain, private = (deployment_of(read_snapshot(name)) for name in ("plain", "private-network"))
    assert OPERATOR_ROLE in list_roles(plain)
    assert OPERATOR_ROLE not in list_roles(private)


def find_order_problems(template: Mapping[str, Any]) -> list[str]:
    """What would run before that which it needs: a snapshot has no order."""
    resources = template["resources"]
    model = resources["modelAccount"]["properties"]["template"]["resources"]
    needs = {
        "functionApp": {"appRoleAssignments"},  # its host starts with the storage that they open
        "appRoleAssignments": {"storage", "serviceBus", "keyVault", "monitoring", "modelAccount"},
        "operatorRoleAssignment": {"keyVault"},
    }
    problems = [
        f"{name} does not wait for {needed}"
        for name, all_needed in needs.items()
        for needed in sorted(all_needed - set(resources[name]["dependsOn"]))
    ]
    chat = model["chat"]["copy"]
    if (chat.get("mode"), chat.get("batchSize")) != ("serial", 1) or "chat" not in model["embedding"][
        "dependsOn"
    ]:
        problems.append("the account gets two deployments at once")
    return problems


def test_nothing_is_created_before_what_it_needs(template: Mapping[str, Any]) -> None:
    assert find_order_problems(template) == []


def test_a_lost_order_is_caught(template: Mapping[str, Any]) -> None:
    changed = copy.deepcopy(dict(template))
    changed["resources"]["functionApp"]["dependsOn"].remove("appRoleAssignments")
    del changed["resources"]["modelAccount"]["properties"]["template"]["resources"]["chat"]["copy"]["mode"]
    assert find_order_problems(changed) == [
        "functionApp does not wait for appRoleAssignments", "the account gets two deployments at once",
    ]  # fmt: skip


def test_the_operator_s_functions_and_no_other_can_be_turned_off() -> None:
    triggers = [(name, b) for name, bindings in read_declared_functions().items() for b in bindings]
    keyed = {name for name, b in triggers if b["type"] == "httpTrigger" and b["authLevel"] == "FUNCTION"}
    for snapshot, value in (("plain", "false"), ("existing-model", "true")):
        settings = deployment_of(read_snapshot(snapshot)).app_settings
        switches = {name: found for name, found in settings.items() if name.endswith(".Disabled")}
        assert switches == {f"AzureWebJobs.{name}.Disabled": value for name in keyed}


def test_a_cost_budget_begins_when_it_is_said_to_and_is_there_only_on_request(tmp_path: Path) -> None:
    (budget,) = deployment_of(read_snapshot("plain")).of_type("Microsoft.Consumption/budgets")
    assert budget["properties"]["timePeriod"] == {"startDate": "2026-11-01"}
    assert not deployment_of(read_snapshot("private-network")).of_type("Microsoft.Consumption/budgets")
    lines = (ROOT / "tests" / "infra" / "plain.bicepparam").read_text(encoding="utf-8").splitlines()
    parameters = tmp_path / "no-start.bicepparam"
    text = "\n".join(line for line in lines if "costBudgetStart" not in line)
    parameters.write_text(
        text.replace("'../../infra/", f"'{os.path.relpath(INFRA, tmp_path)}/"), encoding="utf-8"
    )
    refused = bicep("snapshot", str(parameters), "--mode", "overwrite", "--location", "swedencentral")
    assert "costBudget needs costBudgetStart" in refused.stderr + refused.stdout


# The settings: what the template says of each is what shared/settings.py declares

# The template creates these deployments, so it can name them; elsewhere only the operator knows their names.
TEMPLATE_NAMES = {"TRIAGE_DEPLOYMENT": "triage", "DRAFT_DEPLOYMENT": "draft"}
# Bicep has no fractions: the parameter is text, its bounds are in the description.
FRACTIONS = {"MIN_CONFIDENCE", "MIN_DRAFT_CONFIDENCE", "MAX_SENDER_TOKEN_SHARE"}


@pytest.fixture(scope="module")
def template() -> Mapping[str, Any]:
    compiled: Mapping[str, Any] = json.loads(bicep("build", "infra/main.bicep", "--stdout").stdout)
    return compiled


def find_parameters(template: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any] | None]:
    """Every app setting that the template sets, with the declaration of the one parameter it is made of."""
    agent_settings = template["resources"]["functionApp"]["properties"]["parameters"]["agentSettings"][
        "value"
    ]
    found: dict[str, Mapping[str, Any] | None] = {}
    for name, expression in agent_settings.items():
        used = re.findall(r"parameters\('(\w+)'\)", expression)
        found[name] = template["parameters"][used[0]] if used else None
    return found


def find_differences(setting: Setting, parameter: Mapping[str, Any]) -> list[str]:
    default = parameter["defaultValue"]
    if isinstance(default, list):
        default = ",".join(default)
    declared = TEMPLATE_NAMES.get(setting.name, setting.default)
    is_number = setting.bounds != (0, 0) and setting.name not in FRACTIONS
    bounds = (parameter.get("minValue", 0), parameter.get("maxValue", 0))
    allowed = ("true", "false") if parameter["type"] == "bool" else tuple(parameter.get("allowedValues", ()))
    # What an empty value means may differ: the template does without it in places.
    meaning = setting.meaning.partition(";")[0].rstrip(".")
    facts = {
        "default": (declared, str(default).lower() if isinstance(default, bool) else str(default)),
        "bounds": (setting.bounds if is_number else (0, 0), bounds),
        "choices": (setting.choices, allowed),
        "meaning": (meaning, parameter["metadata"]["description"][: len(meaning)]),
    }
    return [
        f"{setting.name}: {fact} is {ours!r} in shared/settings.py and {theirs!r} in infra/main.bicep"
        for fact, (ours, theirs) in facts.items()
        if ours != theirs
    ]


def test_every_app_setting_of_the_template_is_declared(template: Mapping[str, Any]) -> None:
    assert set(find_parameters(template)) <= {setting.name for setting in SETTINGS}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_a_setting_has_the_same_default_bounds_and_meaning_in_bicep(
    template: Mapping[str, Any], setting: Setting
) -> None:
    parameter = find_parameters(template).get(setting.name)
    assert parameter is None or find_differences(setting, parameter) == []


def test_a_parameter_is_named_for_its_setting(template: Mapping[str, Any]) -> None:
    """docs/settings.md finds a setting's parameter by this rule."""
    parameters = find_parameters(template)
    for setting in SETTINGS:
        declared = template["parameters"].get(find_parameter_name(setting.name))
        assert parameters.get(setting.name) is declared, setting.name


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("MAX_ATTEMPTS", {"defaultValue": 9}), ("MAX_ATTEMPTS", {"minValue": 2}), ("MAX_ATTEMPTS", {"maxValue": 99}),
        ("MODEL_SDK", {"allowedValues": ["openai"]}), ("ALLOW_UNGATED_REPLIES", {"defaultValue": True}),
        ("MULTIMAIL_MAILBOX_IDS", {"defaultValue": ["mb_1"]}), ("MIN_CONFIDENCE", {"defaultValue": "0.5"}),
        ("MAX_ATTEMPTS", {"metadata": {"description": "Tries."}}), ("TRIAGE_DEPLOYMENT", {"defaultValue": "small"}),
    ],
)  # fmt: skip
def test_a_difference_between_template_and_settings_is_caught(
    template: Mapping[str, Any], name: str, change: dict[str, Any]
) -> None:
    parameter = find_parameters(template)[name]
    assert parameter is not None
    (setting,) = (setting for setting in SETTINGS if setting.name == name)
    assert len(find_differences(setting, dict(parameter) | change)) == 1


def test_a_lease_can_be_no_shorter_than_a_function_may_run() -> None:
    (shortest,) = (setting.bounds[0] for setting in SETTINGS if setting.name == "LEASE_SECONDS")
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    _, minutes, _ = host["functionTimeout"].split(":")
    assert shortest > int(minutes) * 60


# The rules themselves: a mistake of each kind is caught


def app_setting(name: str, value: str | None) -> Callable[[dict[str, Any]], None]:
    def plant(snapshot: dict[str, Any]) -> None:
        settings = first(snapshot, "Web/sites/config")["properties"]
        settings.pop(name, None)
        if value is not None:
            settings[name] = value

    return plant


def prop(kind: str, name: str, value: object) -> Callable[[dict[str, Any]], None]:
    def plant(snapshot: dict[str, Any]) -> None:
        first(snapshot, kind)["properties"][name] = value

    return plant


def without(kind: str, part_of_id: str = "") -> Callable[[dict[str, Any]], None]:
    def plant(snapshot: dict[str, Any]) -> None:
        resources = snapshot["predictedResources"]
        resources.remove(next(r for r in resources if r["type"].endswith(kind) and part_of_id in r["id"]))

    return plant


def wider_role(snapshot: dict[str, Any]) -> None:
    role = first(snapshot, "Authorization/roleAssignments")
    role["id"] = re.sub(r"/providers/Microsoft\.Storage/storageAccounts/\w+", "", role["id"])


def other_role(snapshot: dict[str, Any]) -> None:
    role = first(snapshot, "Authorization/roleAssignments")["properties"]
    role["roleDefinitionId"] = role["roleDefinitionId"][:-36] + "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"


def extra_output(snapshot: dict[str, Any]) -> None:
    snapshot["outputs"]["MULTIMAIL_API_KEY"] = "mm_live_1"


def unknown_type(snapshot: dict[str, Any]) -> None:
    snapshot["predictedResources"].append({"type": "Microsoft.Sql/servers", "id": "/x", "name": "x"})


def annotate_only(snapshot: dict[str, Any]) -> None:
    for item in first(snapshot, "CognitiveServices/accounts/raiPolicies")["properties"]["contentFilters"]:
        item["blocking"] = False


def silent_alert(snapshot: dict[str, Any]) -> None:
    first(snapshot, "Insights/scheduledQueryRules")["properties"]["actions"] = {"actionGroups": []}


def silent_budget(snapshot: dict[str, Any]) -> None:
    first(snapshot, "Consumption/budgets")["properties"]["notifications"]["forecast"]["contactGroups"] = []


def part(kind: str, path: str, value: object, part_of_name: str = "") -> Callable[[dict[str, Any]], None]:
    """Change a value deep in the first resource of a kind: the path's numbers are places in a list."""

    def plant(snapshot: dict[str, Any]) -> None:
        resources = snapshot["predictedResources"]
        at: Any = next(r for r in resources if r["type"].endswith(kind) and part_of_name in r["name"])[
            "properties"
        ]
        *way, last = (int(step) if step.isdigit() else step for step in path.split("."))
        for step in way:
            at = at[step]
        if value is None:
            del at[last]
        else:
            at[last] = value

    return plant


def other_metric(snapshot: dict[str, Any]) -> None:
    criteria = first(snapshot, "Insights/metricAlerts")["properties"]["criteria"]
    criteria["allOf"][0]["metricName"] = "DeadLetterMessages"


MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "shared keys": (prop("Storage/storageAccounts", "allowSharedKeyAccess", True), "allowSharedKeyAccess"),
    "public blobs": (prop("Storage/storageAccounts", "allowBlobPublicAccess", True), "allowBlobPublicAccess"),
    "old TLS": (prop("Storage/storageAccounts", "minimumTlsVersion", "TLS1_0"), "minimumTlsVersion"),
    "queue keys": (prop("ServiceBus/namespaces", "disableLocalAuth", False), "disableLocalAuth"),
    "model keys": (prop("CognitiveServices/accounts", "disableLocalAuth", False), "disableLocalAuth"),
    "telemetry keys": (prop("Insights/components", "DisableLocalAuth", False), "DisableLocalAuth"),
    "vault policies": (prop("KeyVault/vaults", "enableRbacAuthorization", False), "enableRbacAuthorization"),
    "publish password": (prop("Web/sites/basicPublishingCredentialsPolicies", "allow", True), "allow"),
    "short lock": (prop("ServiceBus/namespaces/queues", "lockDuration", "PT30S"), "lockDuration"),
    "few deliveries": (prop("ServiceBus/namespaces/queues", "maxDeliveryCount", 10), "maxDeliveryCount"),
    "forbidden setting": (app_setting("FUNCTIONS_WORKER_RUNTIME", "python"), "forbidden"),
    "ambient identity": (app_setting("AZURE_CLIENT_ID", "x"), "forbidden"),
    "unread setting": (app_setting("TRAIGE_DEPLOYMENT", "x"), "read by nobody"),
    "missing setting": (app_setting("KEY_VAULT_URL", None), "is missing"),
    "key in a setting": (app_setting("ServiceBusConnection", "Endpoint=sb://x;SharedAccessKey=y"), "SharedAccessKey"),
    "no credential": (app_setting("ServiceBusConnection__credential", None), "does not sign in by identity"),
    "other identity": (app_setting("AzureWebJobsStorage__clientId", "x"), "somebody else"),
    "few threads": (app_setting("PYTHON_THREADPOOL_THREAD_COUNT", "3"), "threads"),
    "short lease": (app_setting("LEASE_SECONDS", "60"), "lease"),
    "other queue": (app_setting("WORK_QUEUE_NAME", "outbound"), "another queue"),
    "other deployment": (app_setting("DRAFT_DEPLOYMENT", "gpt"), "chat deployments"),
    "missing table": (without("tableServices/tables"), "ledger"),
    "wider scope": (wider_role, "not in the table"),
    "mightier role": (other_role, "not in the table"),
    "missing role": (without("roleAssignments", "queues"), "is missing"),
    "unwatched vault": (without("diagnosticSettings", "KeyVault"), "no diagnostic setting"),
    "secret output": (extra_output, "output MULTIMAIL_API_KEY"),
    "unknown type": (unknown_type, "no type that the rules know"),
    "shields off": (annotate_only, "Indirect Attack"),
    "silent alert": (silent_alert, "calls nobody"),
    "silent budget": (silent_budget, "calls nobody (forecast)"),
    "misspelt metric": (other_metric, "DeadLetterMessages"),
    "missing alert": (without("scheduledQueryRules", "failed-emails"), "alert failed-emails is"),
    "alert that never fires": (part("scheduledQueryRules", "criteria.allOf.0.threshold", 0, "no-success"), "never fires"),
    "alert turned round": (part("scheduledQueryRules", "criteria.allOf.0.operator", "LessThan", "vault"), "or always"),
    "alert off": (part("scheduledQueryRules", "enabled", False), "enabled is False"),
    "action group off": (part("actionGroups", "enabled", False), "enabled is False"),
    "many dead letters": (part("metricAlerts", "criteria.allOf.0.threshold", 9), "more than one"),
    "late budget": (part("budgets", "notifications.spent.threshold", 120), "too late"),
    "budget off": (part("budgets", "notifications.forecast.enabled", False), "or never (forecast)"),
    "no forecast": (part("budgets", "notifications.forecast", None), "reports not both"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_planted_mistake_is_caught(name: str) -> None:
    plant, complaint = MISTAKES[name]
    snapshot = copy.deepcopy(read_snapshot("plain"))
    plant(snapshot)
    assert any(complaint in problem for problem in find_problems(deployment_of(snapshot)))


@pytest.mark.parametrize(
    "kind",
    ["Storage/storageAccounts", "ServiceBus/namespaces", "KeyVault/vaults", "CognitiveServices/accounts"],
)
def test_service_left_open_in_a_private_network_is_caught(kind: str) -> None:
    snapshot = copy.deepcopy(read_snapshot("private-network"))
    prop(kind, "publicNetworkAccess", "Enabled")(snapshot)
    assert any("open to the internet" in problem for problem in find_problems(deployment_of(snapshot)))


SIGN_IN = "identityProviders.azureActiveDirectory"
PRIVATE_MISTAKES: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "closed webhook": (part("sites/config", "globalValidation.excludedPaths", ["/api/health"], "authsettings"), "excludedPaths"),
    "open door": (part("sites/config", "globalValidation.unauthenticatedClientAction", "AllowAnonymous", "auth"), "unauthenticated"),
    "other tenant": (part("sites/config", f"{SIGN_IN}.registration.openIdIssuer", "https://login/common/v2.0", "auth"), "issuer"),
    "no audience": (part("sites/config", f"{SIGN_IN}.validation.allowedAudiences", [], "auth"), "allowedAudiences"),
    "no private endpoint": (without("Network/privateEndpoints", "pe-vault"), "private endpoints for"),
    "no link": (without("virtualNetworkLinks", "vaultcore"), "is not linked to the zone"),
    "other network's link": (part("virtualNetworkLinks", "virtualNetwork.id", "/other", "openai"), "is not linked to the zone"),
    "no zone": (without("privateDnsZones", "table"), "no name leads to the private endpoint for table"),
    "no zone group": (without("privateDnsZoneGroups", "pe-blob"), "no name leads to the private endpoint for blob"),
    "no way out": (part("virtualNetworks", "subnets.0.properties.defaultOutboundAccess", None), "no way out"),
    "no delegation": (part("virtualNetworks", "subnets.0.properties.delegations", []), "is delegated to"),
    "app outside": (part("Web/sites", "virtualNetworkSubnetId", None), "outside the network"),
    "endpoint among apps": (part("virtualNetworks", "subnets.1.properties.delegations", [{"name": "x"}]), "no subnet for endpoints"),
}  # fmt: skip


@pytest.mark.parametrize("name", PRIVATE_MISTAKES)
def test_planted_mistake_in_a_private_network_or_a_sign_in_is_caught(name: str) -> None:
    plant, complaint = PRIVATE_MISTAKES[name]
    snapshot = copy.deepcopy(read_snapshot("private-network"))
    plant(snapshot)
    assert any(complaint in problem for problem in find_problems(deployment_of(snapshot)))


def test_the_private_network_has_the_addresses_that_it_is_given() -> None:
    (network,) = deployment_of(read_snapshot("private-network")).of_type("Microsoft.Network/virtualNetworks")
    prefixes = [subnet["properties"]["addressPrefix"] for subnet in network["properties"]["subnets"]]
    assert network["properties"]["addressSpace"] == {"addressPrefixes": ["10.60.8.0/23"]}
    assert prefixes == ["10.60.8.0/24", "10.60.9.0/26"]


def test_the_model_account_has_its_name_of_its_own_region() -> None:
    """Deleted, it can be restored in its region only: in another the name is another, and free."""
    names = {}
    for snapshot in ("plain", "private-network"):
        deployment = deployment_of(read_snapshot(snapshot))
        (account,) = deployment.of_type("Microsoft.CognitiveServices/accounts")
        (vault,) = deployment.of_type("Microsoft.KeyVault/vaults")
        names[account["location"]] = account["name"].split("-")[1] == vault["name"].split("-")[1]
    assert names == {"swedencentral": True, "eastus2": False}


# The queries

TABLES = tomllib.loads((ROOT / "tests" / "infra" / "tables.toml").read_text(encoding="utf-8"))


def find_query_problems(text: str) -> list[str]:
    """Names in a query that the code does not emit: tables, events, attributes of that event, outcomes."""
    query = "\n".join(line for line in text.splitlines() if not line.startswith("//"))
    table = query.split()[0]
    events = re.findall(r"Properties\['agent\.event'\]\)? == '([^']*)'", query)
    attributes = set(re.findall(r"Properties\['([^']+)'\]", query)) - {"agent.event"}
    outcomes = re.findall(r"Properties\['agent\.outcome'\]\) == '([^']*)'", query)
    statuses = [
        status
        for words in re.findall(r"\bstatus (?:==|in) \(?([^)\n]*?)\)", query)
        for status in re.findall(r"'([^']*)'", words)
    ]
    known = frozenset[str]().union(*(EVENTS.get(event, frozenset()) for event in events))
    return (
        [f"table {table}" for _ in [0] if table not in TABLES]
        + [f"event {event}" for event in events if event not in EVENTS]
        + [f"attribute {name}" for name in sorted(attributes - known)]
        + [f"outcome {outcome}" for outcome in outcomes if outcome not in set(Outcome)]
        + [f"status {status}" for status in statuses if status not in SETTLED + UNSETTLED]
        + ["no event" for _ in [0] if table == "AppTraces" and not events]
    )


@pytest.mark.parametrize("path", QUERIES, ids=lambda path: path.stem)
def test_query_asks_only_for_what_the_code_emits(path: Path) -> None:
    assert find_query_problems(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("name", DOCUMENTED)
def test_query_in_a_document_asks_only_for_what_the_code_emits(name: str) -> None:
    assert find_query_problems(DOCUMENTED[name]) == []


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("'email.decided'", "'email.decide'", "event email.decide"),
        ("agent.mailbox_id", "agent.mailbox", "attribute agent.mailbox"),
        ("agent.outcome'])\n", "agent.tokens'])\n", "attribute agent.tokens"),  # of another event
        ("AppTraces", "traces", "table traces"),
        ("'failed'", "'failure'", "outcome failure"),
    ],
)
def test_misspelt_name_in_a_query_is_caught(right: str, wrong: str, complaint: str) -> None:
    query = (INFRA / "queries" / "alerts" / "failed-emails.kql").read_text(encoding="utf-8") + (
        "| extend x = tostring(Properties['agent.outcome'])\n"
    )
    assert find_query_problems(query) == []
    assert complaint in find_query_problems(query.replace(right, wrong))


@pytest.mark.parametrize("word", ["rejected", "send_failed"])
def test_misspelt_status_in_a_query_is_caught(word: str) -> None:
    query = (INFRA / "queries" / "workbook" / "approval-rate.kql").read_text(encoding="utf-8")
    assert f"status {word}x" in find_query_problems(query.replace(f"'{word}'", f"'{word}x'"))


def test_the_events_are_read_from_the_code() -> None:
    assert set(EVENTS) == {
        "poll.succeeded", "email.decided", "email.deferred", "tokens.budget_reached",
        "reply.settled", "replies.pending", "backlog.measured", "email.redriven", "email.erased", "webhook.received",
        "webhooks.refused", "tool.called", "reply.withdrawn", "service.unavailable", "service.available",
        "matter.closed", "notification.sent", "notification.failed", "audit.anchored", "lookup.finished",
    }  # fmt: skip
    assert {"agent.mailbox_id", "agent.outcome", "agent.calls"} <= EVENTS["email.decided"]


def test_every_query_is_used() -> None:
    used = "".join(
        path.read_text(encoding="utf-8") for path in [*INFRA.rglob("*.bicep"), *ROOT.glob("scripts/*")]
    )
    assert [path.name for path in QUERIES if path.name not in used] == []


# What goes with it


def test_the_workflow_checks_everything_and_deploys_a_tag_without_a_stored_secret() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    jobs = yaml.safe_load(text)["jobs"]
    assert {"run": ".ci/run"} in jobs["check"]["steps"]
    assert jobs["deploy"]["needs"] == "check"
    # Who deploys otherwise has not set it up.
    wanted = "startsWith(github.ref, 'refs/tags/v') && vars.DEPLOYER_CLIENT_ID != ''"
    assert jobs["deploy"]["if"] == wanted
    assert jobs["deploy"]["permissions"]["id-token"] == "write"
    assert "secrets." not in text


def test_the_pipeline_gets_the_vault_s_token_while_github_s_sign_in_lasts() -> None:
    """The Azure CLI has the token for everything else since its sign-in."""
    text = (ROOT / ".github" / "workflows" / "azure-dev.yml").read_text(encoding="utf-8")
    steps = yaml.safe_load(text)["jobs"]["up"]["steps"]
    at = next(n for n, step in enumerate(steps) if step.get("uses", "").startswith("azure/login@"))
    assert (
        steps[at + 1]["run"] == "az account get-access-token --resource https://vault.azure.net --output none"
    )


def test_what_was_deleted_is_restored_only_on_request() -> None:
    plain, private = (deployment_of(read_snapshot(name)) for name in ("plain", "private-network"))
    for deployment, mode, restored in ((plain, "default", None), (private, "recover", True)):
        (vault,) = deployment.of_type("Microsoft.KeyVault/vaults")
        (account,) = deployment.of_type("Microsoft.CognitiveServices/accounts")
        assert vault["properties"]["createMode"] == mode
        assert account["properties"].get("restore") is restored


PARAMETERS = json.loads((INFRA / "main.parameters.json").read_text(encoding="utf-8"))["parameters"]


def test_azd_fills_in_only_parameters_that_there_are_and_who_deploys_with_the_right_type(
    template: Mapping[str, Any],
) -> None:
    assert set(PARAMETERS) <= set(template["parameters"])
    required = {name for name, parameter in template["parameters"].items() if "defaultValue" not in parameter}
    assert required == {"environmentName", "location"}
    assert (
        PARAMETERS["location"]["value"] == "${AZURE_LOCATION}"
    )  # azd's own name: it lists the regions that fit
    # azd itself knows these two, of a person and of a pipeline alike.
    assert PARAMETERS["operatorPrincipalId"]["value"] == "${AZURE_PRINCIPAL_ID}"
    assert PARAMETERS["operatorPrincipalType"]["value"] == "${AZURE_PRINCIPAL_TYPE}"
    assert not (
        INFRA / "main.bicepparam"
    ).exists()  # azd would prefer it, and knows neither type nor regions then


def test_a_region_is_offered_where_there_is_quota_for_the_models_and_no_list_of_ours_forbids_one(
    template: Mapping[str, Any],
) -> None:
    models = [template["parameters"][name]["defaultValue"] for name in ("triageModel", "draftModel")]
    for name in ("location", "modelLocation"):
        parameter = template["parameters"][name]
        assert "allowedValues" not in parameter
        assert parameter["metadata"]["azd"] == {
            "type": "location",
            "usageName": [f"OpenAI.{model['sku']}.{model['name']}, {model['capacity']}" for model in models],
        }


def test_the_hooks_exist_and_can_be_run() -> None:
    azure = yaml.safe_load((ROOT / "azure.yaml").read_text(encoding="utf-8"))
    assert {hook["posix"]["run"] for hook in azure["hooks"].values()} == {
        "scripts/check_plan.sh",
        "scripts/wait_for_roles.sh",
        "scripts/store_key.sh",
        "scripts/check_deployment.sh",
    }
    for hook in azure["hooks"].values():
        assert os.access(ROOT / hook["posix"]["run"], os.X_OK)
        # Of another one azd shows nothing when it succeeds.
        assert [hook[system]["interactive"] for system in ("posix", "windows")] == [True, True]
    (app,) = deployment_of(read_snapshot("plain")).of_type("Microsoft.Web/sites")
    assert app["tags"]["azd-service-name"] in azure["services"]
