metadata description = 'The Service Bus namespace with the work queue.'

@description('Name of the namespace.')
param name string

@description('Region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Close the namespace to every network but the private one. Private endpoints need the Premium tier.')
param isPrivate bool

@description('Name of the work queue.')
param queueName string

@description('The agent\'s own attempts for one email.')
param maxAttempts int

@description('Workspace that takes the logs.')
param workspaceId string

var tier = isPrivate ? 'Premium' : 'Standard'

resource namespace 'Microsoft.ServiceBus/namespaces@2026-01-01' = {
  name: name
  location: location
  tags: tags
  sku: isPrivate ? { name: tier, tier: tier, capacity: 1 } : { name: tier, tier: tier }
  properties: {
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
  }

  resource workQueue 'queues' = {
    name: queueName
    properties: {
      lockDuration: 'PT5M'
      // A retry is a new message, so a message is delivered more than once only when its worker is
      // killed, which the platform does freely while it scales in.
      maxDeliveryCount: 4 * maxAttempts
      // Every message has an id of its own, kept only while the SDK tries the same send again (three tries
      // within 30 seconds). So this drops the SDK's doubles and never a later work item of the same email;
      // a longer window would only slow the queue down. It can be chosen at creation alone.
      requiresDuplicateDetection: true
      duplicateDetectionHistoryTimeWindow: 'PT1M'
      // Each message has a time to live of its own, after which the ledger enqueues its row again. So one
      // that expires is no lost work and no dead letter.
      defaultMessageTimeToLive: 'P1D'
      deadLetteringOnMessageExpiration: false
    }
  }
}

#disable-next-line use-recent-api-versions // see monitoring.bicep
resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: namespace
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logAnalyticsDestinationType: 'Dedicated'
    logs: [{ category: 'OperationalLogs', enabled: true }]
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

@description('Resource id of the namespace.')
output id string = namespace.id
