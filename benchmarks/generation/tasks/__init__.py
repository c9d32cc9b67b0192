"""The twelve tasks, by id."""

from benchmarks.generation.tasks import others, words
from benchmarks.generation.tasks.base import Example, Task

TASKS: dict[str, Task] = {task.id: task for task in (*words.TASKS, *others.TASKS)}

__all__ = ["TASKS", "Example", "Task"]
