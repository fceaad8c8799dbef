"""Launch the graph on Flink: the job server, where the Python workers are, what is the default."""
