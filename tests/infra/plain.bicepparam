using '../../infra/main.bicep'

param environmentName = 'plain'
param location = 'swedencentral'
param operatorPrincipalId = '00000000-0000-0000-0000-00000000000a'
param alertEmail = 'operator@example.com'
