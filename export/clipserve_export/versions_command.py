"""`clipserve versions`: lists the versions of models, and sets which one answers."""

from typing import TYPE_CHECKING, Annotated

import typer

from clipserve.commands.options import AccessOptions, KeyFileOption, read_admin_key, spread_options
from clipserve.connection import check_urls
from clipserve.errors import ClipserveError
from clipserve.fleet.targets import split_urls
from clipserve_export.command_line import REPOSITORY, RepositoryOption, fail, make_console

if TYPE_CHECKING:
    from clipserve_export.versions import PublishedVersion


@spread_options
def versions(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="All that have versions by default.", show_default=False)
    ] = None,
    *,
    serve: Annotated[
        str | None,
        typer.Option(
            metavar="N|latest|latest:K|all|1,2",
            help="The versions that servers load. The highest of them answers.",
            show_default=False,
        ),
    ] = None,
    reload: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,...",
            help="Let this server reload the model. Give its gRPC port. Several servers: separated by commas.",
            show_default=False,
        ),
    ] = None,
    key_file: KeyFileOption = None,
    access: AccessOptions,
    repository: RepositoryOption = REPOSITORY,
) -> None:
    """List the versions of models, roll one out, or roll it back.

    A running server changes when it reloads the model: with --reload, after
    `docker compose exec server python3 -m clipserve_container.reload MODEL`, or after a restart.

    \b
    clipserve versions
    clipserve versions x3d_m --serve 1
    clipserve versions x3d_m --serve latest --reload localhost:8001
    clipserve versions x3d_m --reload gpu1:8001 --key-file admin_key --tls
    """
    console = make_console()
    try:
        tls, headers = access.choose_tls(), access.read_headers() | read_admin_key(key_file)
        urls = split_urls(check_urls("--reload", reload)) if reload else ()
    except ClipserveError as error:
        raise fail(console, str(error), 2) from error
    try:
        from clipserve_export.errors import ExportError
        from clipserve_export.repository import find_spec, read_specs
        from clipserve_export.versions import read_versions, reload_model, serve_versions
    except ModuleNotFoundError as error:
        raise fail(console, f"clipserve versions needs {error.name}: pip install 'clipserve[export]'", 2) from error

    try:
        named = find_spec(repository, model) if model else None
    except ExportError as error:
        raise fail(console, str(error), 2) from error
    if named is None and (serve or reload):
        raise fail(console, "--serve and --reload need a model: clipserve versions MODEL ...", 2)
    try:
        if named and serve:
            serve_versions(repository, named, serve)
        specs = [named] if named else read_specs(repository).values()
        lines = [describe(spec.name, version) for spec in specs for version in read_versions(repository, spec)]
        for line in lines:
            typer.echo(line)
        if not (lines or urls):
            console.print(
                f"no version of {model or 'any model'} is in {repository}: name another (--repository)", markup=False
            )
        if named:
            for url in urls:
                reload_model(named, url, tls=tls, headers=headers)
                console.print(f"{url} has reloaded {model}", markup=False)
        if serve and not urls:
            console.print("a server that runs answers as before until it reloads the model: --reload HOST:PORT")
    except (ExportError, ClipserveError) as error:
        advice = ": --key-file names the file with the admin key" if "restricted" in str(error) else ""
        raise fail(console, f"{error}{advice}", 1) from error


def describe(name: str, version: "PublishedVersion") -> str:
    """One line for one version."""
    record = version.record
    parity = record.get("parity", {})
    facts = [
        f"{name} {version.number}",
        "answers" if version.answers else "loaded" if version.loaded else "not loaded",
        f"{record.get('format', 'unknown format')} {record.get('precision', 'fp32')}",
        f"weights {record.get('weights', 'unknown')} {record.get('weights_sha256', '')[:12]}".rstrip(),
    ]
    if parity:
        features = parity["feature_error"]
        facts.append(
            f"off by {parity['score_error']:.1e} in scores"
            + (f", {features:.1e} in features" if features is not None else "")
        )
    return "  ".join(facts)
