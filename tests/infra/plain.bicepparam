using '../../infra/main.bicep'

param environmentName = 'plain'
param location = 'swedencentral'
param operatorPrincipalId = '00000000-0000-0000-0000-00000000000a'
param alertEmail = 'operator@example.com'
param costBudget = 200
param costBudgetStart = '2026-11-01'
param costBudgetEmail = 'finance@example.com'
