"""Pages whose examples need what is not always installed."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("torch") else ["torch.md", "how-to/use-from-torch.md"]
