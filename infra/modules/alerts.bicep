metadata description = 'The alerts that an operator gets.'

@description('End of every alert\'s name.')
param suffix string

@description('Region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Resource id of the workspace that the queries read.')
param workspaceId string

@description('Resource id of the Service Bus namespace.')
param serviceBusId string

@description('Name of the work queue.')
param queueName string

@description('Resource id of an action group that exists; empty for a new one.')
param actionGroupId string

@description('Address that the new action group sends alerts to; empty for none.')
param alertEmail string

@description('Hours that a reply may wait for approval before an alert.')
param approvalAlertHours int

var queryAlerts = [
  {
    name: 'no-successful-poll'
    title: 'No successful poll in 15 minutes'
    severity: 1
    query: loadTextContent('../queries/alerts/no-successful-poll.kql')
    column: 'polls'
    aggregation: 'Total'
    operator: 'LessThan'
    threshold: 1
    window: 'PT15M'
  }
  {
    name: 'failed-emails'
    title: 'Emails failed'
    severity: 2
    query: loadTextContent('../queries/alerts/failed-emails.kql')
    column: null
    aggregation: 'Count'
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT15M'
  }
  {
    name: 'token-budget-reached'
    title: 'A mailbox used up its token budget for today'
    severity: 3
    query: loadTextContent('../queries/alerts/token-budget-reached.kql')
    column: null
    aggregation: 'Count'
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT15M'
  }
  {
    name: 'approval-overdue'
    title: 'A reply has been waiting for approval for over ${approvalAlertHours} h'
    severity: 3
    query: loadTextContent('../queries/alerts/approval-overdue.kql')
    column: 'hours'
    aggregation: 'Maximum'
    operator: 'GreaterThan'
    threshold: approvalAlertHours
    window: 'PT15M'
  }
  {
    name: 'notifications-undelivered'
    title: 'A target of notifications accepts none'
    severity: 2
    query: loadTextContent('../queries/alerts/notifications-undelivered.kql')
    column: null
    aggregation: 'Count'
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT2H' // a target that is down is tried once an hour
  }
  {
    name: 'vault-access-denied'
    title: 'Key Vault access denied'
    severity: 2
    query: loadTextContent('../queries/alerts/vault-access-denied.kql')
    column: null
    aggregation: 'Count'
    operator: 'GreaterThan'
    threshold: 0
    window: 'PT15M'
  }
]

resource newGroup 'Microsoft.Insights/actionGroups@2023-01-01' = if (empty(actionGroupId)) {
  name: 'ag-${suffix}'
  location: 'global'
  tags: tags
  properties: {
    groupShortName: 'mail-agent'
    enabled: true
    emailReceivers: empty(alertEmail)
      ? []
      : [{ name: 'operator', emailAddress: alertEmail, useCommonAlertSchema: true }]
  }
}

var groupId = empty(actionGroupId) ? newGroup.id : actionGroupId

resource queries 'Microsoft.Insights/scheduledQueryRules@2026-03-01' = [
  for alert in queryAlerts: {
    name: '${alert.name}-${suffix}'
    location: location
    tags: tags
    kind: 'LogAlert'
    properties: {
      displayName: alert.title
      severity: alert.severity
      enabled: true
      scopes: [workspaceId]
      evaluationFrequency: 'PT15M'
      windowSize: alert.window
      // A table appears with its first row, so on the first day a query may name one that is not there.
      skipQueryValidation: true
      autoMitigate: true
      criteria: {
        allOf: [
          {
            query: alert.query
            metricMeasureColumn: alert.column
            timeAggregation: alert.aggregation
            operator: alert.operator
            threshold: alert.threshold
            failingPeriods: { numberOfEvaluationPeriods: 1, minFailingPeriodsToAlert: 1 }
          }
        ]
      }
      actions: { actionGroups: [groupId] }
    }
  }
]

resource deadLetters 'Microsoft.Insights/metricAlerts@2026-01-01' = {
  name: 'dead-letters-${suffix}'
  location: 'global'
  tags: tags
  properties: {
    description: 'Work items were dead-lettered'
    severity: 2
    enabled: true
    scopes: [serviceBusId]
    evaluationFrequency: 'PT5M'
    windowSize: 'PT5M'
    autoMitigate: true
    criteria: {
      'odata.type': 'Microsoft.Azure.Monitor.SingleResourceMultipleMetricCriteria'
      allOf: [
        {
          name: 'dead-letters'
          criterionType: 'StaticThresholdCriterion'
          metricNamespace: 'Microsoft.ServiceBus/namespaces'
          metricName: 'DeadletteredMessages'
          dimensions: [{ name: 'EntityName', operator: 'Include', values: [queueName] }]
          timeAggregation: 'Maximum'
          operator: 'GreaterThan'
          threshold: 0
        }
      ]
    }
    actions: [{ actionGroupId: groupId }]
  }
}

@description('Resource id of the action group that the alerts call.')
output actionGroupId string = groupId
