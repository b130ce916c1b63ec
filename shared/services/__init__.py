"""What every call to a service needs: the connection, the identity, and whether the service works."""
