"""`opensora check-data --video_data video_data.txt`: what a run would use of data, what it would reject and why."""

from opensora.data.lists.check import CheckDataOptions, check_data

OPTIONS = CheckDataOptions
POSITIONAL = None


def run(options: CheckDataOptions) -> None:
    for line in check_data(options):
        print(line)
