using '../../infra/main.bicep'

param environmentName = 'private'
param location = 'swedencentral'
param vnetEnabled = true
param embeddingDeployment = 'embedding'
