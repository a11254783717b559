"""`trtforge preflight`: will a bundle's engines load?"""

from pathlib import Path

import click

from trtforge.cli.console import common_options, print_json, print_table, say


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--device", metavar="CC", help="Compute capability of the GPU, e.g. 8.9; default this one's."
)
@click.option(
    "--library-version",
    metavar="X.Y.Z",
    help="Version of TensorRT on the machine; default the one installed here.",
)
@click.option("--allow-host-code", is_flag=True, help="The application lets engines bring code.")
@common_options
def preflight(
    bundle: Path,
    device: str | None,
    library_version: str | None,
    allow_host_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Say of each engine in BUNDLE whether it will load: load, no-load or unknown, and why.

    Nothing is deserialized. Exit status: 0 all load, 4 one does not, 3 one is not known, 7 a file
    is not what the manifest says.
    """
    from trtforge.pipeline.preflight import machine_here
    from trtforge.pipeline.preflight import preflight as look

    result = look(bundle, machine_here(device, library_version, allow_host_code=allow_host_code))
    if as_json:
        print_json("trtforge.preflight/1", result.as_json())
        return result.exit_status
    for name, findings in result.targets.items():
        say(f"{name}: {result.answer(name)}")
        if not quiet:
            rows = [(one.what, one.answer, one.why) for one in findings]
            print_table(("what", "answer", "why"), rows)
    return result.exit_status
