"""What the commands explain, profile, selectivity and cost do: a net and files in, a figure and its numbers out."""
