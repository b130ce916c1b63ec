"""Support for tests and benchmarks: small worlds, service emulators, measurements."""
