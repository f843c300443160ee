import pytest
import torch
from monai.engines import IterationEvents

from disinr_monai.errors import InputError
from disinr_monai.fitting.losses import MeasurementLoss
from disinr_monai.handlers import ResumeCheckpoint, WatchLoss
from tests.engines import CASES, trainer
from tests.faults.record import record
from tests.problems import small_network


class FaultyLoss(MeasurementLoss):
    """The real loss, multiplied by what is scheduled for an iteration."""

    def __init__(self, factors: dict[int, float]) -> None:
        super().__init__()
        self.factors, self.calls = factors, 0

    def forward(self, *args):
        self.calls += 1
        return super().forward(*args) * self.factors.get(self.calls, 1.0)


def watched(folder, factors, max_epochs=12, **options):
    network = small_network(n_subjects=3)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1000)
    checkpoint = ResumeCheckpoint(str(folder), network, optimizer, scheduler, {}, interval_seconds=0)
    watch = WatchLoss(optimizer, scheduler, checkpoint, **options)
    engine = trainer(network, optimizer, CASES, max_epochs, [checkpoint, watch], loss_function=FaultyLoss(factors))
    return engine, network, optimizer, watch


def test_a_step_that_is_not_finite_is_left_out(tmp_path):
    nan = float("nan")
    engine, network, optimizer, watch = watched(tmp_path, {5: nan, 6: float("inf")}, max_epochs=4)
    engine.run()
    assert watch.skipped == 2
    assert watch.rollbacks == 0
    assert all(torch.isfinite(p).all() for p in network.parameters())
    assert optimizer.param_groups[0]["lr"] == 1e-2
    record("single steps with a loss that is not finite", 2, 2, "those steps")


@pytest.mark.parametrize("fault", [{i: float("nan") for i in range(25, 29)}, {29: 1e6}])
def test_divergence_goes_back_to_the_checkpoint(tmp_path, fault):
    engine, network, optimizer, watch = watched(tmp_path, fault, patience=4)
    saved = {}

    def remember(e):
        if watch.rollbacks and not saved:
            saved.update({name: value.clone() for name, value in network.state_dict().items()})

    engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, remember)
    kept = {}
    original = watch.checkpoint.load_weights

    def load_weights():
        kept.update(torch.load(watch.checkpoint.path, weights_only=True)["network"])
        original()

    watch.checkpoint.load_weights = load_weights
    engine.run()
    assert watch.rollbacks == 1
    for name, value in kept.items():  # what is gone on from is what the file held
        assert torch.equal(saved[name], value)
    assert optimizer.param_groups[0]["lr"] == 5e-3
    record("divergence in pre-training (NaN, exploding loss)", 1, 1, "one checkpoint interval")
    assert all(torch.isfinite(p).all() for p in network.parameters())


def test_it_gives_up_with_one_line(tmp_path):
    engine, *_ = watched(tmp_path, {i: float("nan") for i in range(4, 200)}, max_epochs=40, patience=3)
    with pytest.raises(InputError, match=r"lr: .*diverges \(iteration .* 3 times gone back\); give a smaller --lr"):
        engine.run()
