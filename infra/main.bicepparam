using 'main.bicep'

// The values that azd keeps: azd env set NAME VALUE. Every other parameter of main.bicep can be added here.
param environmentName = readEnvironmentVariable('AZURE_ENV_NAME')
param location = readEnvironmentVariable('AZURE_LOCATION')
param operatorPrincipalId = readEnvironmentVariable('AZURE_PRINCIPAL_ID', '')
param operatorPrincipalType = readEnvironmentVariable('AZURE_PRINCIPAL_TYPE', 'User')
param vnetEnabled = bool(readEnvironmentVariable('VNET_ENABLED', 'false'))
param operatorFunctionsEnabled = bool(readEnvironmentVariable('OPERATOR_FUNCTIONS_ENABLED', 'true'))
param entraClientId = readEnvironmentVariable('ENTRA_CLIENT_ID', '')
param alertEmail = readEnvironmentVariable('ALERT_EMAIL', '')
param existingModelAccountName = readEnvironmentVariable('EXISTING_MODEL_ACCOUNT_NAME', '')
param existingModelResourceGroup = readEnvironmentVariable('EXISTING_MODEL_RESOURCE_GROUP', '')
