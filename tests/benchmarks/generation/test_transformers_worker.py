from benchmarks.generation.shapes import adapters, checkpoint, prompts
from benchmarks.generation.transformers_worker import answer, measured, padded


def a_job(shape, kept, **fields):
    rows = prompts(shape, 5, 12)
    rows[1] = rows[1][:7]  # so that something is padded
    return {
        "checkpoint": str(checkpoint(shape, kept)), "adapters": [], "prompts": rows,
        "adapter_of": [0, None, 1, 1, 0], "output_tokens": 6, "threads": 1, "batch": 5, **fields,
    }  # fmt: skip


def texts_of(job):
    return next(measured(job))["texts"]


def test_a_mixed_batch_writes_what_its_rows_write_alone(tiny_shape, tmp_path):
    folders = [str(f) for f in adapters(tiny_shape, 2, tmp_path)]
    mixed = texts_of(a_job(tiny_shape, tmp_path, adapters=folders))
    assert mixed == texts_of(a_job(tiny_shape, tmp_path, adapters=folders, batch=1))
    bare = texts_of(a_job(tiny_shape, tmp_path))
    assert mixed[1] == bare[1]
    assert sum(text == other for text, other in zip(mixed, bare, strict=True)) < 5
    assert {len(text) for text in mixed} == {6}


def test_continuous_batching_writes_the_same(tiny_llama, tmp_path):
    continuous = texts_of(a_job(tiny_llama, tmp_path, batch=None))
    assert continuous == texts_of(a_job(tiny_llama, tmp_path))


def test_a_job_with_runs_is_answered_by_one_line(tiny_shape, tmp_path):
    lines = []
    answer(a_job(tiny_shape, tmp_path, runs=2), lines.append)
    (line,) = lines
    assert line["tokens_per_second"] > 0
    assert line["texts"] == texts_of(a_job(tiny_shape, tmp_path))


def test_rows_are_padded_on_the_side_that_the_family_wants():
    ids, mask = padded([[5, 6, 7], [8]], 0, left=True)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    ids, mask = padded([[5, 6, 7], [8]], 0, left=False)
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
