"""`trtforge preflight`: will engines load?"""

from pathlib import Path

import click

from trtforge.cli.console import common_options, print_json, print_table, say


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--device",
    metavar="GPU",
    help="The GPU: 8.9, sm89, or a name such as 'RTX 4090' or H100; default this one.",
)
@click.option(
    "--library-version",
    metavar="X.Y.Z",
    help="Version of TensorRT on the machine; default the one installed here.",
)
@click.option(
    "--system",
    type=click.Choice(("linux-x86_64", "windows-amd64", "linux-aarch64")),
    help="What the machine runs; default as this one.",
)
@click.option("--allow-host-code", is_flag=True, help="The application lets engines bring code.")
@common_options
def preflight(
    bundle: Path,
    device: str | None,
    library_version: str | None,
    system: str | None,
    allow_host_code: bool,
    as_json: bool,
    quiet: bool,
    verbose: bool,
) -> int:
    """Say of each engine in BUNDLE whether it will load: load, no-load or unknown, and why.

    BUNDLE may also be a single engine file; outside of a bundle its header alone tells something.

    Nothing is deserialized. Exit status: 0 all load, 4 one does not, 3 one is not known, 7 a file
    is not what the manifest says.
    """
    from trtforge.pipeline.preflight import machine_here
    from trtforge.pipeline.preflight import preflight as look

    machine = machine_here(device, library_version, allow_host_code=allow_host_code, system=system)
    result = look(bundle, machine)
    if as_json:
        print_json("trtforge.preflight/1", result.as_json())
        return result.exit_status
    for name, findings in result.targets.items():
        say(f"{name}: {result.answer(name)}")
        if not quiet:
            rows = [(one.what, one.answer, one.why) for one in findings]
            print_table(("what", "answer", "why"), rows)
    return result.exit_status
