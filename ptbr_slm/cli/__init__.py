"""The command line: one module a verb, each turning typed arguments into one call and one `Report`."""
