"""Launch the graph on Dataflow: its options, what the workers can reach, the template's image."""
