"""Short runs that are logged, with results as a reconstruction leaves them."""

import mlflow
from ignite.engine import Engine

from disinr_monai.tracking import Tracking


def track(store, step=lambda engine, batch: {"loss": 1.0 / engine.state.iteration}, n: int = 45, **options):
    handler = Tracking(str(store), run_name="test", log_every=10, **options)
    engine = Engine(step)
    handler.attach(engine)
    return handler, engine, n


def finished(store, handler):
    client = mlflow.MlflowClient(handler.uri)
    runs = client.search_runs([client.get_experiment_by_name("disinr").experiment_id])
    return client, next(run for run in runs if run.info.run_name == handler.run_name)


class Results:
    rows = [
        {"case": f"s{i}", "subject": f"s{i}", "method": m, "psnr": p + i, "ssim": 0.9, "seconds": 1.0}
        for m, p in (("disinr", 30.0), ("tv", 28.0))
        for i in (0, 1)
    ]
    pictures = []


def with_files(folder):
    """Results of two scans of one named person, as they lie on the user's disk."""
    results = Results()
    results.rows = [{"case": f"doe_john_s{i}", "subject": "doe_john", "method": "tv", "psnr": 30.0} for i in (0, 1)]
    results.pictures = []
    for i in (0, 1):
        picture = folder / f"doe_john_s{i}" / f"doe_john_s{i}_recon.png"
        picture.parent.mkdir(parents=True)
        picture.write_text("png")
        results.pictures.append(picture)
    (folder / "report.html").write_text("doe_john")
    cases = [{"name": f"doe_john_s{i}", "subject": "doe_john", "path": f"/scans/doe_john_{i}.h5"} for i in (0, 1)]
    return results, cases
