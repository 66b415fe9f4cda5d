"""One module per subcommand: read options, call the layers below, print."""
