metadata description = 'The workbook: what an operator looks at every day.'

@description('Title of the workbook.')
param title string

@description('Region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Resource id of the workspace that the queries read.')
param workspaceId string

// Prices change and differ by region: they are boxes in the workbook, filled with a first guess.
var boxes = [
  { name: 'TimeRange', label: 'Time', type: 4, value: { durationMs: 604800000 } }
  { name: 'InputPrice', label: 'USD per 1M input tokens', type: 1, value: '2.50' }
  { name: 'CachedPrice', label: 'USD per 1M cached input tokens', type: 1, value: '0.25' }
  { name: 'OutputPrice', label: 'USD per 1M output tokens', type: 1, value: '15.00' }
  { name: 'EmailId', label: 'Email of the audit trail (* for all)', type: 1, value: '*' }
]

var parts = [
  {
    title: 'Mail by mailbox and outcome'
    chart: 'table'
    query: loadTextContent('../queries/workbook/mail-by-outcome.kql')
  }
  { title: 'Triage', chart: 'table', query: loadTextContent('../queries/workbook/triage-mix.kql') }
  {
    title: 'Time from arrival to a pending reply'
    chart: 'linechart'
    query: loadTextContent('../queries/workbook/time-to-draft.kql')
  }
  {
    title: 'Replies by decision'
    chart: 'table'
    query: loadTextContent('../queries/workbook/approval-rate.kql')
  }
  {
    title: 'Time from a pending reply to the decision'
    chart: 'linechart'
    query: loadTextContent('../queries/workbook/time-to-decision.kql')
  }
  {
    title: 'Tokens and cost by day'
    chart: 'table'
    query: loadTextContent('../queries/workbook/tokens-and-cost.kql')
  }
  { title: 'Reasons for waiting', chart: 'table', query: loadTextContent('../queries/workbook/waiting.kql') }
  {
    title: 'Notifications by target'
    chart: 'table'
    query: loadTextContent('../queries/workbook/notifications.kql')
  }
  { title: 'Audit trail', chart: 'table', query: loadTextContent('../queries/workbook/audit.kql') }
  { title: 'Errors', chart: 'table', query: loadTextContent('../queries/workbook/errors.kql') }
]

var boxItem = {
  type: 9
  name: 'boxes'
  content: {
    version: 'KqlParameterItem/1.0'
    style: 'pills'
    parameters: map(boxes, (box, i) => {
      id: guid('box', box.name)
      version: 'KqlParameterItem/1.0'
      name: box.name
      label: box.label
      type: box.type
      isRequired: true
      value: box.value
      typeSettings: box.type == 4 ? { selectableValues: map([1, 7, 30], days => { durationMs: days * 86400000 }) } : {}
    })
  }
}

var partItems = map(parts, part => {
  type: 3
  name: part.title
  content: {
    version: 'KqlItem/1.0'
    title: part.title
    query: part.query
    queryType: 0
    resourceType: 'microsoft.operationalinsights/workspaces'
    crossComponentResources: [workspaceId]
    timeContextFromParameter: 'TimeRange'
    visualization: part.chart
    size: 0
  }
})

resource workbook 'Microsoft.Insights/workbooks@2023-06-01' = {
  name: guid(resourceGroup().id, 'workbook')
  location: location
  tags: tags
  kind: 'shared'
  properties: {
    displayName: title
    category: 'workbook'
    sourceId: workspaceId
    serializedData: string({
      version: 'Notebook/1.0'
      items: concat([boxItem], partItems)
      fallbackResourceIds: [workspaceId]
    })
  }
}
