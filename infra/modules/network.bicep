metadata description = 'The private network: the app inside, and an endpoint for each service it talks to.'

@description('Name of the network.')
param name string

@description('Region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Its addresses: at least a /23.')
param prefix string

@description('Resource id of the storage account.')
param storageId string

@description('Resource id of the Service Bus namespace.')
param serviceBusId string

@description('Resource id of the vault.')
param vaultId string

@description('Resource id of the model account.')
param modelAccountId string

@description('Workspace that takes the logs.')
param workspaceId string

var endpoints = [
  {
    name: 'blob'
    serviceId: storageId
    group: 'blob'
    zones: ['privatelink.blob.${environment().suffixes.storage}']
  }
  {
    name: 'table'
    serviceId: storageId
    group: 'table'
    zones: ['privatelink.table.${environment().suffixes.storage}']
  }
  {
    name: 'service-bus'
    serviceId: serviceBusId
    group: 'namespace'
    zones: ['privatelink.servicebus.windows.net']
  }
  {
    name: 'vault'
    serviceId: vaultId
    group: 'vault'
    zones: ['privatelink.vaultcore.azure.net']
  }
  {
    name: 'model'
    serviceId: modelAccountId
    group: 'account'
    zones: ['privatelink.openai.azure.com', 'privatelink.cognitiveservices.azure.com']
  }
]
var zoneNames = flatten(map(endpoints, endpoint => endpoint.zones))

resource network 'Microsoft.Network/virtualNetworks@2026-03-01' = {
  name: name
  location: location
  tags: tags
  properties: {
    addressSpace: { addressPrefixes: [prefix] }
    subnets: [
      {
        name: 'app'
        properties: {
          addressPrefix: cidrSubnet(prefix, 24, 0)
          defaultOutboundAccess: true // to MultiMail; recent API versions give a subnet no way out by default
          delegations: [{ name: 'flex', properties: { serviceName: 'Microsoft.App/environments' } }]
        }
      }
      {
        name: 'endpoints'
        properties: { addressPrefix: cidrSubnet(prefix, 26, 4), privateEndpointNetworkPolicies: 'Enabled' }
      }
    ]
  }

  resource app 'subnets' existing = { name: 'app' }
  resource private 'subnets' existing = { name: 'endpoints' }
}

resource zones 'Microsoft.Network/privateDnsZones@2024-06-01' = [
  for zone in zoneNames: { name: zone, location: 'global', tags: tags }
]

resource links 'Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01' = [
  for (zone, i) in zoneNames: {
    parent: zones[i]
    name: name
    location: 'global'
    tags: tags
    properties: { virtualNetwork: { id: network.id }, registrationEnabled: false }
  }
]

resource privateEndpoints 'Microsoft.Network/privateEndpoints@2026-03-01' = [
  for endpoint in endpoints: {
    name: 'pe-${endpoint.name}-${name}'
    location: location
    tags: tags
    properties: {
      subnet: { id: network::private.id }
      privateLinkServiceConnections: [
        {
          name: endpoint.name
          #disable-next-line use-resource-id-functions // each is a parameter, by way of the list above
          properties: { privateLinkServiceId: endpoint.serviceId, groupIds: [endpoint.group] }
        }
      ]
    }
  }
]

resource zoneGroups 'Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2026-03-01' = [
  for (endpoint, i) in endpoints: {
    parent: privateEndpoints[i]
    name: 'default'
    properties: {
      privateDnsZoneConfigs: [
        for zone in endpoint.zones: {
          name: replace(zone, '.', '-')
          properties: { privateDnsZoneId: resourceId('Microsoft.Network/privateDnsZones', zone) }
        }
      ]
    }
    dependsOn: [zones]
  }
]

#disable-next-line use-recent-api-versions // see monitoring.bicep
resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: network
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

@description('Resource id of the subnet that the app joins.')
output appSubnetId string = network::app.id
