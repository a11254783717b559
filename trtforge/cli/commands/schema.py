"""`trtforge schema`: the JSON Schema of recipes, for editors and linters."""

import json

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Accepted for uniformity; it is JSON anyway.")
@click.option("-q", "--quiet", is_flag=True, help="Accepted for uniformity.")
@click.option("-v", "--verbose", is_flag=True, help="Accepted for uniformity.")
def schema(as_json: bool, quiet: bool, verbose: bool) -> None:
    """Print the JSON Schema (2020-12) of recipes, version 1."""
    del as_json, quiet, verbose
    from trtforge.recipe.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=1))
