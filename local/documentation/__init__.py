"""What is generated: the settings reference, the example settings, the list of packages."""
