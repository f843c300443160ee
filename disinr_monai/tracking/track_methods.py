from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from disinr_monai.output.tables import summarise


def log_methods(
    client: Any,
    experiment_id: str,
    parent_id: str,
    rows: list[dict[str, Any]],
    tags: Mapping[str, str],
    when: float | None = None,
) -> list[str]:
    """One MLflow run for each method under one parent, with the same metric names, so that runs can be compared.

    Runs that are already there are completed, not made again: an earlier call may have failed half-way.

    Args:
        client: ``mlflow.MlflowClient``.
        experiment_id: of the parent.
        parent_id: run under which they appear.
        rows: results with ``case``, ``subject``, ``method`` and metrics.
        tags: further tags of every run.
        when: seconds since 1970 of the results; now by default.

    Returns:
        Identifiers of the runs.
    """
    from mlflow.entities import Metric, RunTag

    stamp = int((time.time() if when is None else when) * 1000)
    there = client.search_runs([experiment_id], f"tags.mlflow.parentRunId = '{parent_id}'")
    known = {run.info.run_name: run.info.run_id for run in there}
    made = []
    for method, summary in summarise(rows).items():
        own = {**tags, "method": method, "mlflow.parentRunId": parent_id}
        run_id = known.get(method)
        if run_id is None:
            made_tags = {key: str(value) for key, value in own.items()}
            run_id = client.create_run(experiment_id, stamp, made_tags, run_name=method).info.run_id
        metrics = [Metric(key, float(value), stamp, 0) for key, value in summary.items()]
        mine = [row for row in rows if row["method"] == method]
        for step, row in enumerate(mine):
            for key in ("psnr", "ssim", "nrmse", "seconds"):
                if key in row:
                    metrics.append(Metric(f"{key}_by_case", float(row[key]), stamp, step))
        for first in range(0, len(metrics), 1000):
            client.log_batch(run_id, metrics=metrics[first : first + 1000])
        settings = {k: row[k] for row in mine[:1] for k in ("task", "setting") if k in row}
        client.log_batch(run_id, tags=[RunTag(k, str(v)) for k, v in settings.items()])
        client.set_terminated(run_id, end_time=stamp)
        made.append(run_id)
    return made
