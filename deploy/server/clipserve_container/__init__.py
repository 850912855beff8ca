"""What runs in the server's container around Triton: Python's standard library and clipserve_host only.

start      the entry point: check, then run Triton
check      would it start?              (docker compose run --rm check)
health     is every model ready?        (Docker's health check)
reload     serve what was exported      (docker compose exec server ...)
"""
