"""`opensora check-data --video_data list.txt`: list what training would read or reject, and why."""

from opensora.console import say
from opensora.data.lists.check import CheckDataOptions, check_data

OPTIONS = CheckDataOptions
POSITIONAL = None


def run(options: CheckDataOptions) -> None:
    for line in check_data(options):
        say(line)
