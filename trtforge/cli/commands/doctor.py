"""`trtforge doctor`: what this machine can build and run, and what to install."""

import click

from trtforge.cli.console import common_options, print_json, print_table


@click.command()
@common_options
def doctor(as_json: bool, quiet: bool, verbose: bool) -> None:
    """Say which backends can build and run here, and what is missing."""
    from trtforge.pipeline.rooms import doctor_facts

    facts = doctor_facts()
    if as_json:
        print_json("trtforge.doctor/1", facts)
        return
    rows = [
        (
            backend["name"],
            backend["version"] or "-",
            "yes" if backend["can_build"] else "no",
            "yes" if backend["can_run"] else "no",
            backend["reason"] or "",
        )
        for backend in facts["backends"]
    ]
    print_table(("backend", "version", "builds", "runs", "what is missing"), rows)
    if quiet:
        return
    gpu = facts["gpu"]
    found = [f"{one['name']} ({one['compute_capability']})" for one in gpu["gpus"]]
    click.echo()
    click.echo(f"GPU: {', '.join(found) or 'none'}")
    click.echo(f"driver: {gpu['reason'] or 'CUDA ' + gpu['cuda_version']}")
    click.echo(f"store: {facts['store']}")
    if verbose:
        for name, version in facts["versions"].items():
            click.echo(f"{name}: {version}")
