"""`opensora export-vbench`: name videos as VBench reads them."""

from opensora.metrics.vbench import VBenchOptions

OPTIONS = VBenchOptions
POSITIONAL = None


def run(options: VBenchOptions) -> None:
    from opensora.metrics.vbench import export_vbench

    export_vbench(options)
