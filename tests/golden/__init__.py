"""Records of the four commands on tests/data, kept to the letter: what no change may alter unless it says so."""
