using '../../infra/main.bicep'

param environmentName = 'private'
param location = 'swedencentral'
param vnetEnabled = true
param networkPrefix = '10.60.8.0/23'
param embeddingDeployment = 'embedding'
param entraClientId = '00000000-0000-0000-0000-0000000000ea'
param modelLocation = 'eastus2'
param recoverVault = true
param restoreModelAccount = true
