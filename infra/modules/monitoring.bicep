metadata description = 'Where logs and telemetry go: a Log Analytics workspace, with Application Insights on top.'

@description('Name of the workspace.')
param workspaceName string

@description('Name of the Application Insights component.')
param applicationInsightsName string

@description('Region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Number of days to keep logs.')
param retentionDays int

resource workspace 'Microsoft.OperationalInsights/workspaces@2026-03-01' = {
  name: workspaceName
  location: location
  tags: tags
  properties: {
    sku: { name: 'PerGB2018' }
    retentionInDays: retentionDays
    features: { disableLocalAuth: true }
  }
}

resource applicationInsights 'Microsoft.Insights/components@2020-02-02' = {
  name: applicationInsightsName
  location: location
  tags: tags
  kind: 'web'
  properties: {
    Application_Type: 'web'
    WorkspaceResourceId: workspace.id
    DisableLocalAuth: true
  }
}

#disable-next-line use-recent-api-versions // the one stable version, 2016-09-01, knows less than this preview, which the platform documents
resource workspaceDiagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: workspace
  name: 'to-workspace'
  properties: {
    workspaceId: workspace.id
    logs: [{ category: 'Audit', enabled: true }] // who asked what of the logs
  }
}

@description('Resource id of the workspace.')
output workspaceId string = workspace.id
