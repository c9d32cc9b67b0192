"""Two small language models made here, with one LoRA expert a task, to show and test generation.

Tasks, drills, training and scores; nothing here knows the server. `python -m
benchmarks.generation.train` makes it all.
"""
