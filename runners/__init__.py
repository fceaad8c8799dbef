"""How graphs are launched, and the command line that does it.

What a graph is made of belongs to `pipelines`; here is where it runs, what is checked before it
starts, and what a person sees of it.
"""
