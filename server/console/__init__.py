"""The console: a web page that shows how the server routes, by what its API tells anybody."""
