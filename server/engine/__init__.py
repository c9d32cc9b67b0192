"""The engine: from typed samples to answers with traces, in mixed batches."""
