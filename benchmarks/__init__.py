"""What is measured, and against what.

Each benchmark is a module with `measure(bench)`, which returns plain figures, and `show(figures)`,
which makes tables of them; its docstring says what it compares and what its number means. Speeds
are compared side by side in one run, round about, and said as ratios: machines differ.
"""
