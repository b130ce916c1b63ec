metadata description = 'The function app on Flex Consumption, with every app setting that it has.'

@description('Name of the app.')
param name string

@description('Name of its plan.')
param planName string

@description('Region.')
param location string

@description('Tags.')
param tags { *: string }

@description('Python version of the worker.')
param pythonVersion string

@description('Memory of one instance.')
param instanceMemoryMB int

@description('Maximum number of instances.')
param maximumInstanceCount int

@description('Whether the HTTP functions ask, report and review answer.')
param operatorFunctionsEnabled bool

@description('Client id of the app registration that callers of ask, report and review sign in to; empty for none.')
param entraClientId string

@description('Resource id of the app\'s identity.')
param identityId string

@description('Client id of the app\'s identity.')
param identityClientId string

@description('Name of the storage account.')
param storageAccountName string

@description('Address of the container that the package is deployed to.')
param packageContainerUrl string

@description('Host name of the Service Bus namespace.')
param serviceBusHostName string

@description('Name of the Application Insights component.')
param applicationInsightsName string

@description('The settings of shared/settings.py, by name.')
param agentSettings { *: string }

@description('Subnet that the app joins; empty for none.')
param subnetId string

@description('Workspace that takes the logs.')
param workspaceId string

var hostConfig = loadJsonContent('../../host.json')

// AZURE_CLIENT_ID is not here on purpose: every connection below would take it for its own. Nor are the
// runtime's name and version: on this plan they are in functionAppConfig, and twice breaks the app.
var platformSettings = {
  AzureWebJobsStorage__accountName: storageAccountName
  AzureWebJobsStorage__credential: 'managedidentity'
  AzureWebJobsStorage__clientId: identityClientId
  ServiceBusConnection__fullyQualifiedNamespace: serviceBusHostName
  ServiceBusConnection__credential: 'managedidentity'
  ServiceBusConnection__clientId: identityClientId
  APPLICATIONINSIGHTS_CONNECTION_STRING: applicationInsights.properties.ConnectionString
  APPLICATIONINSIGHTS_AUTHENTICATION_STRING: 'ClientId=${identityClientId};Authorization=AAD'
  PYTHON_APPLICATIONINSIGHTS_ENABLE_TELEMETRY: 'true'
  // The app has a span of its own around each outside call: these would double them, and are cold start.
  OTEL_PYTHON_DISABLED_INSTRUMENTATIONS: 'azure_sdk,django,fastapi,flask,httpx,httpx2,psycopg2,requests,urllib,urllib3'
  // What the exporter reports of itself: rows that nobody reads, and hosts that a private network does not reach.
  APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL: 'true'
  APPLICATIONINSIGHTS_SDKSTATS_DISABLED: 'true'
  APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED: 'true'
  APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED: 'true'
  // The distro's default keeps five traces a second; an audit trail has to have all of them.
  OTEL_TRACES_SAMPLER: 'always_on'
  // A webhook's event has 64 KiB at most, and the platform takes a body in whole before the app sees it.
  FUNCTIONS_REQUEST_BODY_SIZE_LIMIT: '1048576'
  // The platform's own switch: https://learn.microsoft.com/azure/azure-functions/disable-function
  'AzureWebJobs.ask_agent.Disabled': toLower(string(!operatorFunctionsEnabled))
  'AzureWebJobs.report.Disabled': toLower(string(!operatorFunctionsEnabled))
  'AzureWebJobs.review.Disabled': toLower(string(!operatorFunctionsEnabled))
  // Fewer threads than calls would leave messages waiting with their locks running out. Twice as many
  // leave room for the other functions on the instance.
  PYTHON_THREADPOOL_THREAD_COUNT: string(2 * hostConfig.extensions.serviceBus.maxConcurrentCalls)
}

resource applicationInsights 'Microsoft.Insights/components@2020-02-02' existing = {
  name: applicationInsightsName
}

resource plan 'Microsoft.Web/serverfarms@2025-03-01' = {
  name: planName
  location: location
  tags: tags
  kind: 'functionapp'
  sku: { name: 'FC1', tier: 'FlexConsumption' }
  properties: { reserved: true }
}

resource app 'Microsoft.Web/sites@2025-03-01' = {
  name: name
  location: location
  tags: union(tags, { 'azd-service-name': 'agent' })
  kind: 'functionapp,linux'
  identity: { type: 'UserAssigned', userAssignedIdentities: { '${identityId}': {} } }
  properties: {
    serverFarmId: plan.id
    httpsOnly: true
    virtualNetworkSubnetId: empty(subnetId) ? null : subnetId
    siteConfig: { minTlsVersion: '1.2', scmMinTlsVersion: '1.2', ftpsState: 'Disabled' }
    functionAppConfig: {
      deployment: {
        storage: {
          type: 'blobContainer'
          value: packageContainerUrl
          authentication: { type: 'UserAssignedIdentity', userAssignedIdentityResourceId: identityId }
        }
      }
      runtime: { name: 'python', version: pythonVersion }
      scaleAndConcurrency: {
        instanceMemoryMB: instanceMemoryMB
        maximumInstanceCount: maximumInstanceCount
      }
    }
  }

  resource appSettings 'config' = { name: 'appsettings', properties: union(agentSettings, platformSettings) }

  // In front of every path but those that answer strangers: the webhook, which is signed, and the health check.
  // Deployed without a client id too, which turns it off again.
  resource authentication 'config' = {
    name: 'authsettingsV2'
    properties: empty(entraClientId)
      ? { platform: { enabled: false } }
      : {
          platform: { enabled: true }
          globalValidation: {
            requireAuthentication: true
            unauthenticatedClientAction: 'Return401'
            excludedPaths: ['/api/webhook', '/api/health']
          }
          identityProviders: {
            azureActiveDirectory: {
              enabled: true
              registration: {
                clientId: entraClientId
                openIdIssuer: '${environment().authentication.loginEndpoint}${tenant().tenantId}/v2.0'
              }
              validation: { allowedAudiences: [entraClientId, 'api://${entraClientId}'] }
            }
          }
          login: { tokenStore: { enabled: false } }
        }
  }

  // Deployments sign in with Entra ID; the passwords of older days stay off.
  resource ftpPassword 'basicPublishingCredentialsPolicies' = { name: 'ftp', properties: { allow: false } }
  resource scmPassword 'basicPublishingCredentialsPolicies' = { name: 'scm', properties: { allow: false } }
}

#disable-next-line use-recent-api-versions // see monitoring.bicep
resource diagnostics 'Microsoft.Insights/diagnosticSettings@2021-05-01-preview' = {
  scope: app
  name: 'to-workspace'
  properties: {
    workspaceId: workspaceId
    logs: [{ category: 'FunctionAppLogs', enabled: true }] // the host's own, also when the app cannot start
    metrics: [{ category: 'AllMetrics', enabled: true }]
  }
}

@description('Host name of the app.')
output hostName string = app.properties.defaultHostName
