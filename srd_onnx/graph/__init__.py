"""From a file to the graph that rules see: load, write out, simplify, walk, and what each axis means."""
