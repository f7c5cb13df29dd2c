"""Asking a model that somebody else serves, with the standard library and NumPy alone.

This folder is copied beside a served version and runs in Triton's own environment, where kfloop is not: its modules import each other
relatively, and nothing else of kfloop. What kfloop makes of their errors stands in ``kfloop.core.external_client``.
"""

DESCRIPTION = "external.json"  # in a package: which model is asked, and how
ADAPTER = "adapter.py"  # in a package: the user's own functions, copied so that the package's digest covers them
ALIVE_ID = "kfloop-alive"  # a request with this id is answered with zeros, and nobody is asked (or paid)
