metadata description = 'A budget for the resource group, with an alert. It reports what was spent, and stops nothing.'

@description('Name of the budget.')
param name string

@description('Amount a month, in the currency of the subscription\'s bill.')
param amount int

@description('First day of the month in which it begins, YYYY-MM-01. A later deployment cannot change it.')
param startDate string

@description('Address that gets its alerts besides the action group; empty for none.')
param email string

@description('Resource id of the action group.')
param actionGroupId string

resource budget 'Microsoft.Consumption/budgets@2026-06-01' = {
  name: name
  properties: {
    category: 'Cost'
    amount: amount
    timeGrain: 'Monthly'
    timePeriod: { startDate: startDate }
    notifications: {
      spent: {
        enabled: true
        operator: 'GreaterThanOrEqualTo'
        threshold: 80
        thresholdType: 'Actual'
        contactEmails: empty(email) ? [] : [email]
        contactGroups: [actionGroupId]
      }
      forecast: {
        enabled: true
        operator: 'GreaterThan'
        threshold: 100
        thresholdType: 'Forecasted'
        contactEmails: empty(email) ? [] : [email]
        contactGroups: [actionGroupId]
      }
    }
  }
}
