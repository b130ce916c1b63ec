"""What a predicted deployment must and must not hold: each rule reads a snapshot and says what is wrong."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Resource = Mapping[str, Any]

# Settings that the code reads and that Azure must not have: keys, one machine's file, what others imply.
ONE_MACHINE_SETTINGS = {
    "LEDGER_PATH",
    "CONFIG_PATH",  # the package brings its own
    "LEDGER_TABLE_ENDPOINT",  # implied by AzureWebJobsStorage__accountName
    "AzureWebJobsStorage__tableServiceUri",  # likewise
    "MULTIMAIL_WEBHOOK_SECRET",
    "MULTIMAIL_API_KEY",
    "MODEL_API_KEY",
    "ServiceBusConnection",
    "IDENTITY_ENDPOINT",  # the platform's own
}
PLATFORM_SETTINGS = {
    "AzureWebJobsStorage__credential",
    "AzureWebJobsStorage__clientId",
    "ServiceBusConnection__credential",
    "ServiceBusConnection__clientId",
    "APPLICATIONINSIGHTS_CONNECTION_STRING",
    "APPLICATIONINSIGHTS_AUTHENTICATION_STRING",
    "PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY",
    "PYTHON_THREADPOOL_THREAD_COUNT",
    "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    "OTEL_TRACES_SAMPLER",
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
    "FUNCTIONS_REQUEST_BODY_SIZE_LIMIT",
    "AzureWebJobs.ask_agent.Disabled",
    "AzureWebJobs.report.Disabled",
    "AzureWebJobs.review.Disabled",
}
# What answers without a function key: it stays so behind Entra ID.
OPEN_PATHS = ["/api/webhook", "/api/health"]
# What the Azure CLI strips when it moves an app to Flex Consumption, what the plan's documentation
# excludes, and AZURE_CLIENT_ID, which every connection would take for its own.
FORBIDDEN_SETTINGS = {
    "AZURE_CLIENT_ID",
    "AzureWebJobsStorage",
    "AzureWebJobsDashboard",
    "APPINSIGHTS_INSTRUMENTATIONKEY",
    "FUNCTIONS_WORKER_RUNTIME",
    "FUNCTIONS_WORKER_RUNTIME_VERSION",
    "FUNCTIONS_EXTENSION_VERSION",
    "FUNCTIONS_MAX_HTTP_CONCURRENCY",
    "FUNCTIONS_WORKER_PROCESS_COUNT",
    "FUNCTIONS_WORKER_DYNAMIC_CONCURRENCY_ENABLED",
    "ENABLE_ORYX_BUILD",
    "SCM_DO_BUILD_DURING_DEPLOYMENT",
    "WEBSITE_RUN_FROM_PACKAGE",
    "WEBSITE_CONTENTAZUREFILECONNECTIONSTRING",
    "WEBSITE_CONTENTSHARE",
    "WEBSITE_CONTENTOVERVNET",
    "WEBSITE_SKIP_CONTENTSHARE_VALIDATION",
    "WEBSITE_MOUNT_ENABLED",
    "WEBSITE_MAX_DYNAMIC_APPLICATION_SCALE_OUT",
    "WEBSITE_VNET_ROUTE_ALL",
    "WEBSITE_DNS_SERVER",
    "WEBSITE_NODE_DEFAULT_VERSION",
    "WEBSITE_USE_PLACEHOLDER_DOTNETISOLATED",
    "WEBSITE_TIME_ZONE",
    "TZ",
    "WEBSITE_LOAD_CERTIFICATES",
    "WEBSITES_CONTAINER_START_TIME_LIMIT",
}

# Every type that may appear, with what each resource of it must say. An unknown type is a problem:
# whoever adds one decides here what it must say.
REQUIRED: Mapping[str, Mapping[str, object]] = {
    "Microsoft.Storage/storageAccounts": {
        "allowSharedKeyAccess": False,
        "allowBlobPublicAccess": False,
        "minimumTlsVersion": "TLS1_2",
        "supportsHttpsTrafficOnly": True,
    },
    "Microsoft.Storage/storageAccounts/blobServices": {},
    "Microsoft.Storage/storageAccounts/blobServices/containers": {"publicAccess": "None"},
    "Microsoft.Storage/storageAccounts/tableServices": {},
    "Microsoft.Storage/storageAccounts/tableServices/tables": {},
    "Microsoft.ServiceBus/namespaces": {"disableLocalAuth": True, "minimumTlsVersion": "1.2"},
    "Microsoft.ServiceBus/namespaces/queues": {
        "requiresDuplicateDetection": True,
        "duplicateDetectionHistoryTimeWindow": "PT1M",
        "lockDuration": "PT5M",
        "deadLetteringOnMessageExpiration": False,
    },
    "Microsoft.KeyVault/vaults": {
        "enableRbacAuthorization": True,
        "enablePurgeProtection": True,
        "enableSoftDelete": True,
    },
    "Microsoft.CognitiveServices/accounts": {"disableLocalAuth": True},
    "Microsoft.CognitiveServices/accounts/deployments": {"raiPolicyName": "inbound-email"},
    "Microsoft.CognitiveServices/accounts/raiPolicies": {"mode": "Blocking"},
    "Microsoft.OperationalInsights/workspaces": {"features.disableLocalAuth": True},
    "Microsoft.Insights/components": {"DisableLocalAuth": True},
    "Microsoft.Insights/diagnosticSettings": {},
    "Microsoft.Insights/actionGroups": {"enabled": True},
    "Microsoft.Insights/scheduledQueryRules": {"enabled": True},
    "Microsoft.Insights/metricAlerts": {"enabled": True},
    "Microsoft.Insights/workbooks": {},
    "Microsoft.Consumption/budgets": {"category": "Cost", "timeGrain": "Monthly"},
    "Microsoft.Web/serverfarms": {"reserved": True},
    "Microsoft.Web/sites": {
        "httpsOnly": True,
        "siteConfig.minTlsVersion": "1.2",
        "siteConfig.ftpsState": "Disabled",
        "functionAppConfig.runtime.name": "python",
        "functionAppConfig.deployment.storage.authentication.type": "UserAssignedIdentity",
    },
    "Microsoft.Web/sites/config": {},
    "Microsoft.Web/sites/basicPublishingCredentialsPolicies": {"allow": False},
    "Microsoft.ManagedIdentity/userAssignedIdentities": {},
    "Microsoft.Authorization/roleAssignments": {},
    "Microsoft.Resources/resourceGroups": {},
    "Microsoft.Network/virtualNetworks": {},
    "Microsoft.Network/privateEndpoints": {},
    "Microsoft.Network/privateEndpoints/privateDnsZoneGroups": {},
    "Microsoft.Network/privateDnsZones": {},
    "Microsoft.Network/privateDnsZones/virtualNetworkLinks": {},
}
# Closed to the internet when the network is private. The app's own address stays open: deployments come
# that way, and all it answers without a function key is its health. So do the two ends of telemetry, which take only tokens.
CLOSED_WHEN_PRIVATE = {
    "Microsoft.Storage/storageAccounts",
    "Microsoft.ServiceBus/namespaces",
    "Microsoft.KeyVault/vaults",
    "Microsoft.CognitiveServices/accounts",
}
# Types with logs or metrics of their own. Application Insights' are in the workspace already; a plan's,
# a private endpoint's and a workbook's are of no use to anybody.
WATCHED = {
    "Microsoft.Storage/storageAccounts/blobServices",
    "Microsoft.Storage/storageAccounts/tableServices",
    "Microsoft.ServiceBus/namespaces",
    "Microsoft.KeyVault/vaults",
    "Microsoft.CognitiveServices/accounts",
    "Microsoft.OperationalInsights/workspaces",
    "Microsoft.Web/sites",
    "Microsoft.Network/virtualNetworks",
}
# Every role there may be: who, which, on what type. Ids from Microsoft's table of built-in roles.
ROLES = {
    ("app", "b7e6dc6d-f1e8-4753-8033-0f276bb0955b", "storageAccounts"),  # Storage Blob Data Owner
    ("app", "0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3", "storageAccounts"),  # Storage Table Data Contributor
    ("app", "090c5cfd-751d-490a-894a-3ce6f1109419", "queues"),  # Azure Service Bus Data Owner
    ("app", "4633458b-17de-408a-b874-0445c86b69e6", "vaults"),  # Key Vault Secrets User
    ("app", "3913510d-42f4-4e42-8a64-420c390055eb", "components"),  # Monitoring Metrics Publisher
    ("app", "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd", "accounts"),  # Cognitive Services OpenAI User
}
OPERATOR_ROLE = ("operator", "b86a8fe4-44ce-4948-aee5-eccb2c155cd7", "vaults")  # Key Vault Secrets Officer
# What each alert measures, and between which thresholds.
ALERTS: Mapping[str, tuple[str, str, range]] = {
    "no-successful-poll": ("Total", "LessThan", range(1, 2)),
    "failed-emails": ("Count", "GreaterThan", range(1)),
    "token-budget-reached": ("Count", "GreaterThan", range(1)),
    "approval-overdue": ("Maximum", "GreaterThan", range(1, 701)),
    "vault-access-denied": ("Count", "GreaterThan", range(1)),
}
# The names that lead to each private endpoint, by the part of the service that it is for.
ENDPOINT_ZONES = {
    "blob": ["privatelink.blob."],
    "table": ["privatelink.table."],
    "namespace": ["privatelink.servicebus.windows.net"],
    "vault": ["privatelink.vaultcore.azure.net"],
    "account": ["privatelink.openai.azure.com", "privatelink.cognitiveservices.azure.com"],
}
TENANT = "00000000-0000-0000-0000-0000000000ff"  # the one of scripts/snapshot.sh
OUTPUTS = {
    "AZURE_RESOURCE_GROUP",
    "FUNCTION_APP_NAME",
    "FUNCTION_APP_HOST",
    "KEY_VAULT_NAME",
    "MULTIMAIL_API_KEY_SECRET_NAME",  # the secret's name
    "MULTIMAIL_WEBHOOK_SECRET_NAME",  # likewise
    "WORKSPACE_NAME",
    "COST_BUDGET_START",
}
KEY_SIGNS = re.compile(r"listKeys|listSecrets|AccountKey|SharedAccessKey|InstrumentationKey|Password=", re.I)


@dataclass(frozen=True)
class Deployment:
    """A snapshot, and what the code on the other side says."""

    snapshot: Mapping[str, Any]
    read_settings: frozenset[str]  # names that shared/settings.py reads
    ledger_table: str
    host: Mapping[str, Any]  # host.json

    @cached_property
    def resources(self) -> Sequence[Resource]:
        resources: Sequence[Resource] = self.snapshot["predictedResources"]
        return resources

    def of_type(self, kind: str) -> list[Resource]:
        return [resource for resource in self.resources if resource["type"] == kind]

    @property
    def app_settings(self) -> Mapping[str, str]:
        (config,) = (
            c for c in self.of_type("Microsoft.Web/sites/config") if c["name"].endswith("/appsettings")
        )
        settings: Mapping[str, str] = config["properties"]
        return settings

    @property
    def is_private(self) -> bool:
        return bool(self.of_type("Microsoft.Network/virtualNetworks"))


def get_path(resource: Resource, path: str) -> object:
    value: Any = resource.get("properties", {})
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def seconds(span: str) -> int:
    hours, minutes, rest = (int(part) for part in span.split(":"))
    return hours * 3600 + minutes * 60 + rest


def check_properties(deployment: Deployment) -> list[str]:
    problems = []
    for resource in deployment.resources:
        wanted = REQUIRED.get(resource["type"])
        if str(get_path(resource, "model.name")).startswith("text-embedding"):
            continue  # what it makes is no text, to which no content policy applies
        if wanted is None:
            problems.append(f"{resource['type']} is no type that the rules know")
            continue
        for path, value in wanted.items():
            if get_path(resource, path) != value:
                problems.append(f"{resource['name']}: {path} is {get_path(resource, path)}, not {value}")
    return problems


def check_network(deployment: Deployment) -> list[str]:
    if not deployment.is_private:
        return []
    problems = [
        f"{resource['name']}: open to the internet"
        for kind in CLOSED_WHEN_PRIVATE
        for resource in deployment.of_type(kind)
        if get_path(resource, "publicNetworkAccess") != "Disabled"
        or get_path(resource, "networkAcls.defaultAction") not in (None, "Deny")
    ]
    groups = list(list_endpoints(deployment))
    if sorted(groups) != sorted(ENDPOINT_ZONES):
        problems.append(f"private endpoints for {groups}")
    (namespace,) = deployment.of_type("Microsoft.ServiceBus/namespaces")
    if namespace["sku"]["name"] != "Premium":
        problems.append("only Premium namespaces take private endpoints")
    return problems


def list_endpoints(deployment: Deployment) -> Mapping[str, Resource]:
    """The private endpoints, by the part of the service that each is for."""
    return {
        group: endpoint
        for endpoint in deployment.of_type("Microsoft.Network/privateEndpoints")
        for connection in endpoint["properties"]["privateLinkServiceConnections"]
        for group in connection["properties"]["groupIds"]
    }


def check_subnets(deployment: Deployment) -> list[str]:
    """The app's has a way out, to MultiMail, and belongs to its plan; the endpoints are in another."""
    problems = []
    (app,) = deployment.of_type("Microsoft.Web/sites")
    for network in deployment.of_type("Microsoft.Network/virtualNetworks"):
        subnets = {
            f"{network['id']}/subnets/{s['name']}": s["properties"] for s in network["properties"]["subnets"]
        }
        of_app = subnets.get(str(get_path(app, "virtualNetworkSubnetId")))
        if of_app is None:
            problems.append("the app is outside the network")
            continue
        services = [delegation["properties"]["serviceName"] for delegation in of_app.get("delegations", [])]
        if services != ["Microsoft.App/environments"]:
            problems.append(f"the app's subnet is delegated to {services}")
        if of_app.get("defaultOutboundAccess") is not True:
            problems.append("the app's subnet has no way out")
        for group, endpoint in list_endpoints(deployment).items():
            subnet = subnets.get(str(get_path(endpoint, "subnet.id")))
            if subnet is None or subnet.get("delegations"):
                problems.append(f"the private endpoint for {group} is in no subnet for endpoints")
    return problems


def check_private_names(deployment: Deployment) -> list[str]:
    """Inside the network the name of each service leads to its private endpoint."""
    problems = []
    zones = {
        zone["id"]: zone["name"].strip("[]")
        for zone in deployment.of_type("Microsoft.Network/privateDnsZones")
    }
    networks = [network["id"] for network in deployment.of_type("Microsoft.Network/virtualNetworks")]
    links = deployment.of_type("Microsoft.Network/privateDnsZones/virtualNetworkLinks")
    for name in zones.values():
        if not any(
            name in link["name"] and get_path(link, "virtualNetwork.id") in networks for link in links
        ):
            problems.append(f"the network is not linked to the zone {name}")
    records = {
        group["name"].split("/")[0]: [
            zones.get(c["properties"]["privateDnsZoneId"], "")
            for c in group["properties"]["privateDnsZoneConfigs"]
        ]
        for group in deployment.of_type("Microsoft.Network/privateEndpoints/privateDnsZoneGroups")
    }
    for group, endpoint in list_endpoints(deployment).items():
        names = records.get(endpoint["name"], [])
        problems += [
            f"no name leads to the private endpoint for {group}: {wanted} is in no zone group of it"
            for wanted in ENDPOINT_ZONES.get(group, [])
            if not any(wanted in name for name in names)
        ]
    return problems


def check_setting_names(deployment: Deployment) -> list[str]:
    names = set(deployment.app_settings)
    wanted = (deployment.read_settings - ONE_MACHINE_SETTINGS) | PLATFORM_SETTINGS
    return (
        [f"{name} is forbidden" for name in sorted(names & FORBIDDEN_SETTINGS)]
        + [f"{name} is missing" for name in sorted(wanted - names)]
        + [f"{name} is read by nobody" for name in sorted(names - wanted - FORBIDDEN_SETTINGS)]
    )


def check_identity_connections(deployment: Deployment) -> list[str]:
    settings, problems = deployment.app_settings, []
    client_id = settings.get("MANAGED_IDENTITY_CLIENT_ID", "")
    for prefix in ("AzureWebJobsStorage", "ServiceBusConnection"):
        if settings.get(f"{prefix}__credential") != "managedidentity":
            problems.append(f"{prefix} does not sign in by identity")
        if not client_id or settings.get(f"{prefix}__clientId") != client_id:
            problems.append(f"{prefix} signs in as somebody else")
    if "Authorization=AAD" not in settings.get("APPLICATIONINSIGHTS_AUTHENTICATION_STRING", ""):
        problems.append("telemetry does not sign in by identity")
    return problems


def check_sign_in(deployment: Deployment) -> list[str]:
    """Where Entra ID is in front of the app, it is in front of everything but the open paths; elsewhere it is turned off."""
    (config,) = (
        c for c in deployment.of_type("Microsoft.Web/sites/config") if c["name"].endswith("/authsettingsV2")
    )
    if get_path(config, "platform.enabled") is False:
        return []
    provider = "identityProviders.azureActiveDirectory"
    client = get_path(config, f"{provider}.registration.clientId")
    issuer = str(get_path(config, f"{provider}.registration.openIdIssuer"))
    wanted: Mapping[str, object] = {
        "platform.enabled": True,
        "globalValidation.requireAuthentication": True,
        "globalValidation.unauthenticatedClientAction": "Return401",
        "globalValidation.excludedPaths": OPEN_PATHS,
        f"{provider}.enabled": True,
        f"{provider}.validation.allowedAudiences": [client, f"api://{client}"],
    }
    problems = [
        f"sign-in: {path} is {get_path(config, path)}"
        for path, value in wanted.items()
        if get_path(config, path) != value
    ]
    if not client or TENANT not in issuer or "/v2.0" not in issuer:
        problems.append(f"sign-in: the issuer {issuer} is not this tenant's")
    return problems


def check_keys(deployment: Deployment) -> list[str]:
    found = KEY_SIGNS.findall(json.dumps(deployment.snapshot))
    return [f"{sign} has no place in a deployment by identity" for sign in found]


def check_numbers(deployment: Deployment) -> list[str]:
    settings, service_bus = deployment.app_settings, deployment.host["extensions"]["serviceBus"]
    (queue,) = deployment.of_type("Microsoft.ServiceBus/namespaces/queues")
    timeout = seconds(deployment.host["functionTimeout"])
    rules = {
        "more calls than threads": int(settings.get("PYTHON_THREADPOOL_THREAD_COUNT", 0))
        >= service_bus["maxConcurrentCalls"],
        "maxDeliveryCount is not well above MAX_ATTEMPTS": queue["properties"]["maxDeliveryCount"]
        >= 2 * int(settings.get("MAX_ATTEMPTS", 0)) + 4,
        "a function may outlive its lease": timeout < float(settings.get("LEASE_SECONDS", 0)),
        "a function may outlive its lock": timeout <= seconds(service_bus["maxAutoLockRenewalDuration"]),
    }
    return [problem for problem, holds in rules.items() if not holds]


def check_names(deployment: Deployment) -> list[str]:
    """Names that stand on both sides: queue, tables, package container, namespace, account, deployments."""
    settings, problems = deployment.app_settings, []
    (queue,) = deployment.of_type("Microsoft.ServiceBus/namespaces/queues")
    namespace = settings.get("ServiceBusConnection__fullyQualifiedNamespace", "").split(".")[0]
    if queue["name"] != f"{namespace}/{settings.get('WORK_QUEUE_NAME')}":
        problems.append(f"the app listens to another queue than {queue['name']}")
    (account,) = deployment.of_type("Microsoft.Storage/storageAccounts")
    if settings.get("AzureWebJobsStorage__accountName") != account["name"]:
        problems.append(f"the app uses another account than {account['name']}")
    tables = deployment.of_type("Microsoft.Storage/storageAccounts/tableServices/tables")
    if [table["name"].split("/")[-1] for table in tables] != [deployment.ledger_table]:
        problems.append("the tables are not the ledger's")
    (container,) = deployment.of_type("Microsoft.Storage/storageAccounts/blobServices/containers")
    (app,) = deployment.of_type("Microsoft.Web/sites")
    address = str(get_path(app, "functionAppConfig.deployment.storage.value"))
    if container["name"].split("/")[-1] not in address:
        problems.append("the package goes into a container that is not there")
    chat = deployment.of_type("Microsoft.CognitiveServices/accounts/deployments")
    names = ("TRIAGE_DEPLOYMENT", "DRAFT_DEPLOYMENT", "EMBEDDING_DEPLOYMENT")
    wanted = {settings[name] for name in names if settings.get(name)}
    if chat and {deployed["name"].split("/")[-1] for deployed in chat} != wanted:
        problems.append("the app asks for chat deployments that are not there")
    return problems


def list_roles(deployment: Deployment) -> list[tuple[str, str, str]]:
    """Each role that is given: to whom, which, on what type of resource."""
    return [_describe(role) for role in deployment.of_type("Microsoft.Authorization/roleAssignments")]


def check_roles(deployment: Deployment) -> list[str]:
    found = list_roles(deployment)
    allowed = ROLES | {OPERATOR_ROLE}
    return (
        [f"role {role} is not in the table" for role in found if role not in allowed]
        + [f"role {role} is missing" for role in ROLES if role not in found]
        + [f"role {role} is given twice" for role in set(found) if found.count(role) > 1]
    )


def _describe(assignment: Resource) -> tuple[str, str, str]:
    """Who gets which role on what type of resource; a wider scope shows as another type."""
    properties = assignment["properties"]
    by_identity = "userAssignedIdentities" in properties["principalId"]
    is_service = properties["principalType"] == "ServicePrincipal"
    scope = re.search(r"/subscriptions/[^']*?(?='|/providers/Microsoft.Authorization|$)", assignment["id"])
    kind = scope.group().split("/")[-2] if scope else "unknown"
    who = "app" if by_identity and is_service else "operator" if not by_identity else "nobody"
    return who, properties["roleDefinitionId"].split("/")[-1], kind


def check_diagnostics(deployment: Deployment) -> list[str]:
    marker = "/providers/Microsoft.Insights/diagnosticSettings/"
    watched = {
        setting["id"].split(marker)[0]
        for setting in deployment.of_type("Microsoft.Insights/diagnosticSettings")
        if get_path(setting, "workspaceId")
        and any(e["enabled"] for e in [*setting["properties"].get("logs", []), *setting["properties"].get("metrics", [])])
    }  # fmt: skip
    return [
        f"{resource['name']} has no diagnostic setting"
        for kind in WATCHED
        for resource in deployment.of_type(kind)
        if resource["id"] not in watched
    ]


def check_content_policy(deployment: Deployment) -> list[str]:
    problems = []
    for policy in deployment.of_type("Microsoft.CognitiveServices/accounts/raiPolicies"):
        blocking = {
            (item["name"], item["source"])
            for item in policy["properties"]["contentFilters"]
            if item["enabled"] and item["blocking"]
        }
        shields = {("Jailbreak", "Prompt"), ("Indirect Attack", "Prompt")}
        harms = {(n, s) for n in ("Hate", "Sexual", "Violence", "Selfharm") for s in ("Prompt", "Completion")}
        problems += [f"{policy['name']} does not block {item}" for item in (shields | harms) - blocking]
    return problems


def check_outputs(deployment: Deployment) -> list[str]:
    names = set(deployment.snapshot["outputs"])
    return [f"output {name} is not in the table" for name in sorted(names ^ OUTPUTS)]


def check_alerts(deployment: Deployment) -> list[str]:
    """Every alert is there, measures what it is to, and calls somebody."""
    rules = {
        r["name"].rsplit("-", 1)[0]: r for r in deployment.of_type("Microsoft.Insights/scheduledQueryRules")
    }
    problems = [f"alert {name} is not in the table, or missing" for name in sorted(set(rules) ^ set(ALERTS))]
    for name in sorted(set(rules) & set(ALERTS)):
        if not get_path(rules[name], "actions.actionGroups"):
            problems.append(f"{name} calls nobody")
        (criterion,) = rules[name]["properties"]["criteria"]["allOf"]
        aggregation, operator, thresholds = ALERTS[name]
        measured = (criterion["timeAggregation"], criterion["operator"])
        if measured != (aggregation, operator) or criterion["threshold"] not in thresholds:
            problems.append(f"{name} never fires, or always: {measured} {criterion['threshold']}")
    return problems


def check_dead_letters(deployment: Deployment) -> list[str]:
    """The metric is the one that Service Bus has for dead letters, and one is enough."""
    (alert,) = deployment.of_type("Microsoft.Insights/metricAlerts")
    problems = [] if get_path(alert, "actions") else [f"{alert['name']} calls nobody"]
    (criterion,) = alert["properties"]["criteria"]["allOf"]
    watched = [(d["name"], d["values"]) for d in criterion["dimensions"]]
    wanted = [("EntityName", [deployment.app_settings.get("WORK_QUEUE_NAME")])]
    if criterion["metricName"] != "DeadletteredMessages" or watched != wanted:
        problems.append(f"{alert['name']} watches {criterion['metricName']} of {watched}")
    if (criterion["operator"], criterion["threshold"]) != ("GreaterThan", 0):
        problems.append(f"{alert['name']} waits for more than one")
    return problems


def check_budget(deployment: Deployment) -> list[str]:
    """It reports what was spent before it is all spent, and a forecast above it."""
    problems = []
    for budget in deployment.of_type("Microsoft.Consumption/budgets"):
        notifications = budget["properties"]["notifications"]
        for name, notification in notifications.items():
            if not notification["contactGroups"]:
                problems.append(f"{budget['name']} calls nobody ({name})")
            if not notification["enabled"] or not 0 < notification["threshold"] <= 100:
                problems.append(f"{budget['name']} reports too late, or never ({name})")
        if {n["thresholdType"] for n in notifications.values()} != {"Actual", "Forecasted"}:
            problems.append(f"{budget['name']} reports not both, what was spent and what will be")
    return problems


RULES: tuple[Callable[[Deployment], list[str]], ...] = (
    check_properties,
    check_network,
    check_subnets,
    check_private_names,
    check_setting_names,
    check_identity_connections,
    check_sign_in,
    check_keys,
    check_numbers,
    check_names,
    check_roles,
    check_diagnostics,
    check_content_policy,
    check_outputs,
    check_alerts,
    check_dead_letters,
    check_budget,
)


def find_problems(deployment: Deployment) -> list[str]:
    """Everything that any rule objects to."""
    return [problem for rule in RULES for problem in rule(deployment)]
