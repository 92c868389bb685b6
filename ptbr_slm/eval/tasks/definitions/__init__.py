"""The tasks of the package, a YAML each, and the functions that they name (`harness`)."""
