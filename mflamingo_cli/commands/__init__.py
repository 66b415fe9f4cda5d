"""One module per subcommand: reads options, calls the layers below, prints. Heavy imports stay inside the command bodies."""
