metadata description = 'The vault of the MultiMail key, the signing secret of webhooks, and the addresses and keys of the targets of notifications.'

@description('Name of the vault.')
param name string

@description('Region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Close the vault to every network but the private one.')
param isPrivate bool

@description('Recover the deleted vault of this name.')
param isRecovered bool

@description('Workspace that takes the logs.')
param workspaceId string

resource vault 'Microsoft.KeyVault/vaults@2026-05-15' = {
  name: name
  location: location
  tags: tags
  properties: {
    tenantId: tenant().tenantId
    createMode: isRecovered ? 'recover' : 'default'
    sku: { family: 'A', name: 'standard' }
    enableRbacAuthorization: true
    enableSoftDelete: true
    enablePurgeProtection: true
    // The shortest there is: MultiMail issues a new key in a minute, and until then the name is taken.
    softDeleteRetentionInDays: 7
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: {
      bypass: 'None'
      defaultAction: isPrivate ? 'Deny' : 'Allow'
    }
  }
}

#disable-next-line use-recent-api-versions // see monitoring.bicep
resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: vault
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated' // the table AZKVAuditLogs, which the alert reads
    logs: [{ category: 'AuditEvent', enabled: true }]
  }
}

@description('Resource id of the vault.')
output id string = vault.id
