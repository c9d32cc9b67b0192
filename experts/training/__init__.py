"""Train an expert for a task: data, objective, loop. One code path with serving.

The forward pass that is trained is the one that is served: leaf tensors in a mix of one.
"""
