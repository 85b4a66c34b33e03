"""What talks to a server: `Client` and `AsyncClient`, made from one table of calls."""
