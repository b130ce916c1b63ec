using '../../infra/main.bicep'

param environmentName = 'existing'
param location = 'swedencentral'
param existingModelAccountName = 'oai-of-the-company'
param existingModelResourceGroup = 'rg-models'
param triageDeployment = 'chat'
param draftDeployment = 'chat'
param actionGroupId = '/subscriptions/00000000-0000-0000-0000-000000000001/resourceGroups/rg-watch/providers/Microsoft.Insights/actionGroups/on-call'
param operatorFunctionsEnabled = false
