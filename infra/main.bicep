targetScope = 'subscription'

metadata name = 'MultiMail agent'
metadata description = 'Everything the agent needs in Azure, by identity alone. Deploy with azd up, or az deployment sub create.'

import { ModelChoice } from 'modules/model-account.bicep'

// Where

@minLength(1)
@maxLength(40)
@description('Name of this installation. Every other name is made from it, the subscription and the region.')
param environmentName string

// azd lists the regions in which the subscription has the quota; scripts/check_plan.sh looks at the rest.
@metadata({
  azd: {
    type: 'location'
    usageName: ['OpenAI.GlobalStandard.gpt-5.4-mini, 100', 'OpenAI.GlobalStandard.gpt-5.4, 200']
  }
})
@description('Region. It must offer Flex Consumption: az functionapp list-flexconsumption-locations.')
param location string

// azd does not ask for it, because it has a default: the metadata take effect for those who remove that.
@metadata({
  azd: {
    type: 'location'
    usageName: ['OpenAI.GlobalStandard.gpt-5.4-mini, 100', 'OpenAI.GlobalStandard.gpt-5.4, 200']
  }
})
@description('Region of the model account; empty for that of the rest. It must offer the models.')
param modelLocation string = ''

@description('Put storage, Service Bus, vault and model account behind private endpoints and close them to the internet. Decide before the first deployment: Service Bus then needs its Premium tier, and a Standard namespace cannot be upgraded.')
param vnetEnabled bool = false

@description('Addresses of the private network, at least a /23: others than those of the networks that it is peered with.')
param networkPrefix string = '10.40.0.0/16'

@description('Recover the vault that was deleted with an earlier installation of the same name, with the secrets in it. azd sets it when there is one.')
param recoverVault bool = false

@description('Restore the model account that was deleted with an earlier installation of the same name. azd sets it when there is one.')
param restoreModelAccount bool = false

// Who

@description('Object id of the operator who stores the MultiMail key; empty to grant nobody.')
param operatorPrincipalId string = ''

@allowed(['User', 'Group', 'ServicePrincipal'])
@description('Principal type of the operator.')
param operatorPrincipalType string = 'User'

// Function app

@allowed(['3.11', '3.12', '3.13'])
@description('Python version: one that the tests run on. 3.12 has the worker with the fewest open telemetry bugs.')
param pythonVersion string = '3.12'

@allowed([512, 2048, 4096])
@description('Memory of one instance.')
param instanceMemoryMB int = 2048

@minValue(1)
@maxValue(1000)
@description('Maximum number of instances. Each works on as many emails at once as maxConcurrentCalls in host.json says. Some regions refuse fewer than 40.')
param maximumInstanceCount int = 40

@description('Offer the HTTP functions ask, report and review, which take a function key. Off, they answer 404, except to a caller with the app\'s master key, and the review desk has no agent; the webhook and the health check stay.')
param operatorFunctionsEnabled bool = true

@description('Client id of an app registration in Entra ID, to whose audience a caller of ask, report and review needs a token, besides the function key; empty for the function key alone. The webhook and the health check stay without.')
param entraClientId string = ''

// Chat models. What retires when, and what replaces it:
// https://learn.microsoft.com/azure/foundry/openai/concepts/model-retirement-schedule
// As of August 2026 it names 2027-09-21 for the triage model below and 2027-09-02 for the draft model.

@allowed(['azure-ai-inference', 'openai'])
@description('Python SDK that calls the models.')
param modelSdk string = 'azure-ai-inference'

@description('Name of an Azure OpenAI account that exists, in this subscription, whose sub-domain is its name; empty for a new one. The two deployments must exist in it, with a content policy that has the Jailbreak and Indirect Attack shields.')
param existingModelAccountName string = ''

@description('Resource group of the existing account.')
param existingModelResourceGroup string = ''

@description('Name of the deployment for triage, of a chat model with structured outputs.')
param triageDeployment string = 'triage'

@description('Model for triage: small and fast will do.')
param triageModel ModelChoice = {
  name: 'gpt-5.4-mini'
  version: '2026-03-17'
  sku: 'GlobalStandard'
  capacity: 100
}

@description('Name of the deployment for drafts.')
param draftDeployment string = 'draft'

@description('Model for drafts: the stronger one.')
param draftModel ModelChoice = { name: 'gpt-5.4', version: '2026-03-05', sku: 'GlobalStandard', capacity: 200 }

@allowed(['default', 'none', 'minimal', 'low', 'medium', 'high', 'xhigh'])
@description('How much the model thinks before it writes a draft: default leaves it to the model, others are for models that have them.')
param draftReasoningEffort string = 'default'

@description('Name of an embedding deployment (text-embedding-3), to search knowledge files by meaning as well; empty for words alone.')
param embeddingDeployment string = ''

@description('Model for embeddings, of the family text-embedding-3.')
param embeddingModel ModelChoice = {
  name: 'text-embedding-3-small'
  version: '1'
  sku: 'GlobalStandard'
  capacity: 100
}

// MultiMail

@description('Root of the MultiMail service, without /v1.')
param multimailApiUrl string = 'https://api.multimail.dev'

@description('Name of the vault\'s secret with the MultiMail key.')
param multimailApiKeySecretName string = 'multimail-api-key'

@description('Name of the vault\'s secret that signs MultiMail\'s webhooks. Without such a secret webhooks are refused.')
param multimailWebhookSecretName string = 'multimail-webhook-secret'

@description('Ids or addresses of the mailboxes to answer; empty for every active one of the account.')
param multimailMailboxIds string[] = []

@description('Let the new mail of every mailbox wait, unread.')
param pauseAll bool = false

// Knowledge

@description('Root of an Azure AI Search service with the approved knowledge, https://NAME.search.windows.net; empty for the files in config/knowledge. Give the app\'s identity the role Search Index Data Reader there.')
param searchEndpoint string = ''

@description('Name of the search index.')
param searchIndex string = 'knowledge'

@description('Field of the index that has a vectorizer, to search by meaning as well; empty for words alone.')
param searchVectorField string = ''

@minValue(1000)
@maxValue(200000)
@description('Maximum tokens of approved text in a draft: what fits goes in whole, the rest is searched.')
param knowledgeTokens int = 24000

// The agent's schedules and limits. Names, defaults, bounds and meanings as in shared/settings.py, which a test compares.

@description('When to poll: NCRONTAB with seconds, in UTC.')
param pollSchedule string = '0 */1 * * * *'

@description('When to check what became of replies: NCRONTAB with seconds, in UTC.')
param trackSchedule string = '30 */5 * * * *'

@description('Name of the queue with the work items.')
param workQueueName string = 'inbound-email'

@minValue(0)
@maxValue(8760)
@description('How far back the first poll of a mailbox looks.')
param initialLookbackHours int = 24

@minValue(1)
@maxValue(8760)
@description('Maximum age of an email that is still answered.')
param maxEmailAgeHours int = 72

@minValue(1)
@maxValue(100)
@description('Attempts at one email before its outcome is failed.')
param maxAttempts int = 8

@minValue(600)
@maxValue(86400)
@description('How long a worker owns an email: longer than functionTimeout in host.json.')
param leaseSeconds int = 600

@minValue(0)
@maxValue(3600)
@description('Maximum of the random delay before the first retry; it doubles each time.')
param retryBaseSeconds int = 5

@minValue(0)
@maxValue(86400)
@description('Maximum delay between retries.')
param retryMaxSeconds int = 900

@minValue(1)
@maxValue(100)
@description('Maximum replies in one thread.')
param maxRepliesPerThread int = 3

@minValue(1)
@maxValue(1000)
@description('Maximum replies to one sender in a day.')
param maxRepliesPerSenderPerDay int = 5

@minValue(1)
@maxValue(1000000000000)
@description('Maximum tokens for one mailbox in a day; further mail waits until tomorrow.')
param dailyTokenBudget int = 12000000

@description('Maximum share of a mailbox\'s daily tokens for one sender; beyond it mail goes to a person. From 0.001 to 1 (no limit), as text.')
param maxSenderTokenShare string = '0.2'

@minValue(1)
@maxValue(3650)
@description('Days after which the ledger erases the drafts, senders and texts of an email that is done.')
param retentionDays int = 90

@description('US dollars per million input, output and cached input tokens of each deployment: small=0.40/1.60/0.04,large=2/8/0.2; without the third, cached input costs as much as other.')
param tokenPrices string = ''

@description('What triage is less sure of goes to a person. From 0 to 1, as text, because Bicep has no fractions.')
param minConfidence string = '0.6'

@description('A draft that the model is less sure of is proposed to a person, not submitted. From 0 to 1, as text.')
param minDraftConfidence string = '0'

@description('Let replies leave without a person\'s approval where the mailbox allows that. Leave it off unless you are sure.')
param allowUngatedReplies bool = false

// Watching

@description('Resource id of an action group that the alerts call; empty for a new one.')
param actionGroupId string = ''

@description('Address that the new action group sends alerts to; empty for none.')
param alertEmail string = ''

@minValue(1)
@maxValue(700)
@description('Hours that a reply may wait for approval before an alert. After 30 days the agent stops checking a reply.')
param approvalAlertHours int = 24

@minValue(30)
@maxValue(730)
@description('Number of days to keep logs.')
param logRetentionDays int = 30

@minValue(0)
@description('Amount a month, in the currency of your bill, whose use raises an alert: at 80 % spent, and at a forecast above it. 0 for no budget. It stops nothing; dailyTokenBudget does.')
param costBudget int = 0

@description('First day of the month in which that budget begins, YYYY-MM-01, at most a month ago when it is created. Keep it: a budget\'s start cannot be changed. With azd it is chosen once, for you.')
param costBudgetStart string = ''

@description('Address that gets the budget\'s alerts besides the action group; empty for none.')
param costBudgetEmail string = ''

var token = toLower(uniqueString(subscription().id, environmentName, location))
// Of its own region: a deleted account of this name can be restored there, and nowhere else.
var modelRegion = empty(modelLocation) ? location : modelLocation
var modelToken = toLower(uniqueString(subscription().id, environmentName, modelRegion))
var tags = { 'azd-env-name': environmentName }
var groupName = 'rg-${environmentName}'
var names = {
  app: 'func-${token}'
  applicationInsights: 'appi-${token}'
  identity: 'id-${token}'
  model: 'oai-${modelToken}'
  network: 'vnet-${token}'
  plan: 'plan-${token}'
  serviceBus: 'sbns-${token}'
  storage: 'st${token}'
  vault: 'kv-${token}'
  workspace: 'log-${token}'
}
var hasOwnModel = empty(existingModelAccountName)

resource group 'Microsoft.Resources/resourceGroups@2025-04-01' = {
  name: groupName
  location: location
  tags: tags
}

module identity 'modules/identity.bicep' = {
  scope: group
  params: { name: names.identity, location: location, tags: tags }
}

module monitoring 'modules/monitoring.bicep' = {
  scope: group
  params: {
    workspaceName: names.workspace
    applicationInsightsName: names.applicationInsights
    location: location
    tags: tags
    retentionDays: logRetentionDays
  }
}

module storage 'modules/storage.bicep' = {
  scope: group
  params: {
    name: names.storage
    location: location
    tags: tags
    isPrivate: vnetEnabled
    packageContainerName: 'app-package'
    workspaceId: monitoring.outputs.workspaceId
  }
}

module serviceBus 'modules/service-bus.bicep' = {
  scope: group
  params: {
    name: names.serviceBus
    location: location
    tags: tags
    isPrivate: vnetEnabled
    queueName: workQueueName
    maxAttempts: maxAttempts
    workspaceId: monitoring.outputs.workspaceId
  }
}

module keyVault 'modules/key-vault.bicep' = {
  scope: group
  params: {
    name: names.vault
    location: location
    tags: tags
    isPrivate: vnetEnabled
    isRecovered: recoverVault
    workspaceId: monitoring.outputs.workspaceId
  }
}

module modelAccount 'modules/model-account.bicep' = if (hasOwnModel) {
  scope: group
  params: {
    name: names.model
    location: modelRegion
    tags: tags
    isPrivate: vnetEnabled
    isRestored: restoreModelAccount
    triageDeployment: triageDeployment
    triageModel: triageModel
    draftDeployment: draftDeployment
    draftModel: draftModel
    embeddingDeployment: embeddingDeployment
    embeddingModel: embeddingModel
    workspaceId: monitoring.outputs.workspaceId
  }
}

var modelGroupName = hasOwnModel ? groupName : existingModelResourceGroup
var modelName = hasOwnModel ? names.model : existingModelAccountName
var modelAccountId = resourceId(
  subscription().subscriptionId,
  modelGroupName,
  'Microsoft.CognitiveServices/accounts',
  modelName
)

module network 'modules/network.bicep' = if (vnetEnabled) {
  scope: group
  params: {
    name: names.network
    location: location
    tags: tags
    prefix: networkPrefix
    storageId: storage.outputs.id
    serviceBusId: serviceBus.outputs.id
    vaultId: keyVault.outputs.id
    modelAccountId: hasOwnModel ? modelAccount!.outputs.id : modelAccountId
    workspaceId: monitoring.outputs.workspaceId
  }
}

var storageId = resourceId(subscription().subscriptionId, groupName, 'Microsoft.Storage/storageAccounts', names.storage)
var queueId = resourceId(
  subscription().subscriptionId,
  groupName,
  'Microsoft.ServiceBus/namespaces/queues',
  names.serviceBus,
  workQueueName
)
var vaultId = resourceId(subscription().subscriptionId, groupName, 'Microsoft.KeyVault/vaults', names.vault)
var applicationInsightsId = resourceId(
  subscription().subscriptionId,
  groupName,
  'Microsoft.Insights/components',
  names.applicationInsights
)

// Every permission there is. https://learn.microsoft.com/azure/role-based-access-control/built-in-roles
var appRoles = [
  // Storage Blob Data Owner: the host's own blobs, the timer's lease, the package.
  { resourceId: storageId, role: 'b7e6dc6d-f1e8-4753-8033-0f276bb0955b', group: groupName }
  // Storage Table Data Contributor: the ledger, and the host's diagnostic events.
  { resourceId: storageId, role: '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3', group: groupName }
  // Azure Service Bus Data Owner, on this one queue: the platform starts the first instance by the
  // queue's length, which Data Receiver may not read. It covers sending and receiving too.
  { resourceId: queueId, role: '090c5cfd-751d-490a-894a-3ce6f1109419', group: groupName }
  // Key Vault Secrets User: read the MultiMail key, the webhook's signing secret, and the targets' secrets.
  { resourceId: vaultId, role: '4633458b-17de-408a-b874-0445c86b69e6', group: groupName }
  // Monitoring Metrics Publisher: send telemetry.
  { resourceId: applicationInsightsId, role: '3913510d-42f4-4e42-8a64-420c390055eb', group: groupName }
  // Cognitive Services OpenAI User: call the models.
  { resourceId: modelAccountId, role: '5e0bd9bd-7b93-4f28-af87-19fc36ad61bd', group: modelGroupName }
]

module appRoleAssignments 'modules/role-assignment.json' = [
  for assignment in appRoles: {
    scope: resourceGroup(assignment.group)
    params: {
      resourceId: assignment.resourceId
      roleDefinitionId: assignment.role
      #disable-next-line what-if-short-circuiting // part of the name, so that a new identity gets new roles
      principalId: identity.outputs.principalId
      principalType: 'ServicePrincipal'
    }
    dependsOn: [storage, serviceBus, keyVault, monitoring, modelAccount]
  }
]

// Key Vault Secrets Officer: store them.
module operatorRoleAssignment 'modules/role-assignment.json' = if (!empty(operatorPrincipalId)) {
  scope: group
  params: {
    resourceId: vaultId
    roleDefinitionId: 'b86a8fe4-44ce-4948-aee5-eccb2c155cd7'
    principalId: operatorPrincipalId
    principalType: operatorPrincipalType
  }
  dependsOn: [keyVault]
}

module functionApp 'modules/function-app.bicep' = {
  scope: group
  params: {
    name: names.app
    planName: names.plan
    location: location
    tags: tags
    pythonVersion: pythonVersion
    instanceMemoryMB: instanceMemoryMB
    maximumInstanceCount: maximumInstanceCount
    operatorFunctionsEnabled: operatorFunctionsEnabled
    entraClientId: entraClientId
    identityId: identity.outputs.id
    identityClientId: identity.outputs.clientId
    storageAccountName: names.storage
    packageContainerUrl: storage.outputs.packageContainerUrl
    serviceBusHostName: '${names.serviceBus}.servicebus.windows.net'
    applicationInsightsName: names.applicationInsights
    subnetId: vnetEnabled ? network!.outputs.appSubnetId : ''
    workspaceId: monitoring.outputs.workspaceId
    agentSettings: {
      MULTIMAIL_API_URL: multimailApiUrl
      KEY_VAULT_URL: 'https://${names.vault}${environment().suffixes.keyvaultDns}'
      MULTIMAIL_API_KEY_SECRET_NAME: multimailApiKeySecretName
      MULTIMAIL_WEBHOOK_SECRET_NAME: multimailWebhookSecretName
      MULTIMAIL_MAILBOX_IDS: join(multimailMailboxIds, ',')
      PAUSE_ALL: toLower(string(pauseAll))
      MODEL_SDK: modelSdk
      MODEL_ENDPOINT: 'https://${modelName}.openai.azure.com'
      TRIAGE_DEPLOYMENT: triageDeployment
      DRAFT_DEPLOYMENT: draftDeployment
      DRAFT_REASONING_EFFORT: draftReasoningEffort
      SEARCH_ENDPOINT: searchEndpoint
      EMBEDDING_DEPLOYMENT: embeddingDeployment
      SEARCH_INDEX: searchIndex
      SEARCH_VECTOR_FIELD: searchVectorField
      KNOWLEDGE_TOKENS: string(knowledgeTokens)
      WORK_QUEUE_NAME: workQueueName
      MANAGED_IDENTITY_CLIENT_ID: identity.outputs.clientId
      POLL_SCHEDULE: pollSchedule
      TRACK_SCHEDULE: trackSchedule
      INITIAL_LOOKBACK_HOURS: string(initialLookbackHours)
      MAX_EMAIL_AGE_HOURS: string(maxEmailAgeHours)
      MAX_ATTEMPTS: string(maxAttempts)
      LEASE_SECONDS: string(leaseSeconds)
      RETRY_BASE_SECONDS: string(retryBaseSeconds)
      RETRY_MAX_SECONDS: string(retryMaxSeconds)
      MAX_REPLIES_PER_THREAD: string(maxRepliesPerThread)
      MAX_REPLIES_PER_SENDER_PER_DAY: string(maxRepliesPerSenderPerDay)
      DAILY_TOKEN_BUDGET: string(dailyTokenBudget)
      MAX_SENDER_TOKEN_SHARE: maxSenderTokenShare
      RETENTION_DAYS: string(retentionDays)
      TOKEN_PRICES: tokenPrices
      MIN_CONFIDENCE: minConfidence
      MIN_DRAFT_CONFIDENCE: minDraftConfidence
      ALLOW_UNGATED_REPLIES: toLower(string(allowUngatedReplies))
    }
  }
  dependsOn: [appRoleAssignments]
}

module alerts 'modules/alerts.bicep' = {
  scope: group
  params: {
    suffix: token
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
    serviceBusId: serviceBus.outputs.id
    queueName: workQueueName
    actionGroupId: actionGroupId
    alertEmail: alertEmail
    approvalAlertHours: approvalAlertHours
  }
}

module budget 'modules/cost-budget.bicep' = if (costBudget > 0) {
  scope: group
  params: {
    name: 'budget-${token}'
    amount: costBudget
    startDate: empty(costBudgetStart) ? fail('costBudget needs costBudgetStart: YYYY-MM-01') : costBudgetStart
    email: costBudgetEmail
    actionGroupId: alerts.outputs.actionGroupId
  }
}

module workbook 'modules/workbook.bicep' = {
  scope: group
  params: {
    title: 'MultiMail agent: ${environmentName}'
    location: location
    tags: tags
    workspaceId: monitoring.outputs.workspaceId
  }
}

@description('Resource group of the installation.')
output AZURE_RESOURCE_GROUP string = groupName

@description('Name of the function app.')
output FUNCTION_APP_NAME string = names.app

@description('Host name of the function app.')
output FUNCTION_APP_HOST string = functionApp.outputs.hostName

@description('Name of the vault that the MultiMail key is stored in.')
output KEY_VAULT_NAME string = names.vault

@description('Name of the vault\'s secret with the MultiMail key.')
output MULTIMAIL_API_KEY_SECRET_NAME string = multimailApiKeySecretName

@description('Name of the vault\'s secret that MultiMail\'s webhooks are signed with.')
output MULTIMAIL_WEBHOOK_SECRET_NAME string = multimailWebhookSecretName

@description('Start of the cost budget, kept by azd.')
output COST_BUDGET_START string = costBudgetStart

@description('Name of the Log Analytics workspace.')
output WORKSPACE_NAME string = names.workspace
