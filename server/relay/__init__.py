"""The seam between who takes requests and who answers them: plain messages, each way.

`messages` says what is said, `local` has it answered by an app in this process, and `front` speaks
HTTP in front of whoever answers. Another process needs one more `Relay`; see `deploy/ray`.
"""
