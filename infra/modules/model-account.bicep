metadata description = 'The Azure OpenAI account: a deployment for triage, one for drafts, their content policy, and perhaps one for embeddings.'

@export()
@description('Which model a deployment serves.')
type ModelChoice = {
  @description('Name of the model.')
  name: string

  @description('Version of the model.')
  version: string

  @description('Deployment type, for example GlobalStandard, DataZoneStandard or Standard.')
  sku: string

  @description('Thousands of tokens per minute.')
  capacity: int
}

@description('Name of the account and of its sub-domain.')
param name string

@description('Region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Close the account to every network but the private one.')
param isPrivate bool

@description('Restore the deleted account of this name.')
param isRestored bool

@description('Name of the deployment for triage.')
param triageDeployment string

@description('Model for triage.')
param triageModel ModelChoice

@description('Name of the deployment for drafts; the same name means one deployment for both.')
param draftDeployment string

@description('Model for drafts.')
param draftModel ModelChoice

@description('Name of the deployment for embeddings; empty for none.')
param embeddingDeployment string

@description('Model for embeddings.')
param embeddingModel ModelChoice

@description('Workspace that takes the logs.')
param workspaceId string

var triage = { name: triageDeployment, model: triageModel }
var deployments = triageDeployment == draftDeployment
  ? [triage]
  : [triage, { name: draftDeployment, model: draftModel }]

var harms = ['Hate', 'Sexual', 'Violence', 'Selfharm']
var harmFilters = [
  for i in range(0, 2 * length(harms)): {
    name: harms[i / 2]
    source: i % 2 == 0 ? 'Prompt' : 'Completion'
    severityThreshold: 'Medium'
    blocking: true
    enabled: true
  }
]
// The shields against an email that gives orders. What they refuse is never retried and goes to a human.
var shields = [
  { name: 'Jailbreak', source: 'Prompt', blocking: true, enabled: true }
  { name: 'Indirect Attack', source: 'Prompt', blocking: true, enabled: true }
]
// A policy that is based on DefaultV2 must name its remaining filters too.
var others = [
  { name: 'Protected Material Text', source: 'Completion', blocking: true, enabled: true }
  { name: 'Protected Material Code', source: 'Completion', blocking: false, enabled: true }
]

resource account 'Microsoft.CognitiveServices/accounts@2026-07-01' = {
  name: name
  location: location
  tags: tags
  kind: 'OpenAI'
  sku: { name: 'S0' }
  properties: {
    customSubDomainName: name // without one there is no sign-in by identity
    disableLocalAuth: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: { defaultAction: isPrivate ? 'Deny' : 'Allow' }
    ...(isRestored ? { restore: true } : {})
  }
}

resource contentPolicy 'Microsoft.CognitiveServices/accounts/raiPolicies@2026-07-01' = {
  parent: account
  name: 'inbound-email'
  properties: {
    mode: 'Blocking'
    basePolicyName: 'Microsoft.DefaultV2'
    contentFilters: concat(harmFilters, shields, others)
  }
}

// One after the other: the account answers a second write at the same time with a conflict.
@batchSize(1)
resource chat 'Microsoft.CognitiveServices/accounts/deployments@2026-07-01' = [
  for deployment in deployments: {
    parent: account
    name: deployment.name
    sku: { name: deployment.model.sku, capacity: deployment.model.capacity }
    properties: {
      model: { format: 'OpenAI', name: deployment.model.name, version: deployment.model.version }
      raiPolicyName: contentPolicy.name
      // Mail goes on being answered when the version retires, by the successor that Azure names.
      versionUpgradeOption: 'OnceCurrentVersionExpired'
    }
  }
]

// Without the content policy: an embedding is no text, and nobody reads it.
resource embedding 'Microsoft.CognitiveServices/accounts/deployments@2026-07-01' = if (!empty(embeddingDeployment)) {
  parent: account
  name: !empty(embeddingDeployment) ? embeddingDeployment : 'none'
  sku: { name: embeddingModel.sku, capacity: embeddingModel.capacity }
  properties: {
    model: { format: 'OpenAI', name: embeddingModel.name, version: embeddingModel.version }
    versionUpgradeOption: 'OnceCurrentVersionExpired'
  }
  dependsOn: [chat] // one after the other, as above
}

#disable-next-line use-recent-api-versions // see monitoring.bicep
resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: account
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [{ category: 'Audit', enabled: true }] // prompts are in none of its categories
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

@description('Resource id of the account.')
output id string = account.id
