"""`greensv dashboard`: optuna-dashboard on a study's database, reachable from this machine only."""

import click

from greensv.cli.options import DEFAULT_STORAGE


@click.command()
@click.option("--storage", default=DEFAULT_STORAGE, show_default=True, metavar="URL", help="Database of the studies.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port on 127.0.0.1.")
def dashboard(*, storage: str, port: int) -> None:
    """Open a study in optuna-dashboard, bound to 127.0.0.1: it asks nobody for a password.

    Renaming or deleting a study there neither loses nor moves money: the ledger is keyed by greensv's own study id.
    """
    import socket

    import optuna_dashboard

    from greensv.errors import StudyError
    from greensv.search.storage import open_storage

    optuna_storage, _ = open_storage(storage, create=False)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StudyError(
                f"port {port} of 127.0.0.1 cannot be used ({error.strerror}); choose another with --port"
            ) from error
        free_port = probe.getsockname()[1]
    click.echo(f"optuna-dashboard on http://127.0.0.1:{free_port}/ (Ctrl-C to stop)")
    optuna_dashboard.run_server(optuna_storage, host="127.0.0.1", port=free_port)
