metadata description = 'The storage account: the Functions host, the deployed package, and the ledger.'

@description('Name of the account.')
param name string

@description('Region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Close the account to every network but the private one.')
param isPrivate bool

@description('Container of the deployed package.')
param packageContainerName string

@description('Workspace that takes the logs.')
param workspaceId string

// As in shared/ledger/table_store.py, which would create it too; a test compares the two.
var ledgerTable = 'ledger'

resource account 'Microsoft.Storage/storageAccounts@2026-06-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_LRS' }
  properties: {
    accessTier: 'Hot'
    allowBlobPublicAccess: false
    allowCrossTenantReplication: false
    allowSharedKeyAccess: false
    defaultToOAuthAuthentication: true
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: {
      bypass: 'None'
      defaultAction: isPrivate ? 'Deny' : 'Allow'
    }
  }

  resource blobs 'blobServices' = {
    name: 'default'
    properties: {
      deleteRetentionPolicy: { enabled: true, days: 7 }
    }

    resource packages 'containers' = {
      name: packageContainerName
      properties: { publicAccess: 'None' }
    }
  }

  resource tables 'tableServices' = {
    name: 'default'

    resource ledger 'tables' = { name: ledgerTable }
  }
}

// Reads are left out: the host and the polls read all day long, and each read would be a paid log line.
var changes = [
  { category: 'StorageWrite', enabled: true }
  { category: 'StorageDelete', enabled: true }
]

#disable-next-line use-recent-api-versions // see monitoring.bicep
resource blobDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: account::blobs
  name: 'to-workspace'
  properties: { workspaceId: workspaceId, logs: changes }
}

#disable-next-line use-recent-api-versions // see monitoring.bicep
resource tableDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: account::tables
  name: 'to-workspace'
  properties: { workspaceId: workspaceId, logs: changes }
}

@description('Resource id of the account.')
output id string = account.id

@description('Address of the container that the package is deployed to.')
output packageContainerUrl string = '${account.properties.primaryEndpoints.blob}${packageContainerName}'
