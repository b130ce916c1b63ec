"""What every call to a service needs: connection, identity, secrets, and whether it works."""
