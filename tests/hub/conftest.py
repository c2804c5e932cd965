"""The tests in `loopback` need a process of their own; `test_hub.py` starts it."""

import sys

collect_ignore = [] if "loopback_hub" in sys.modules else ["loopback"]
