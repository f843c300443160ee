import torch

from disinr_monai.handlers import AverageWeights


def test_running_mean_of_the_weights():
    module = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(module.weight)
    average = AverageWeights(module, decay=0.5)
    for value in (1.0, 1.0, 1.0, 1.0):
        torch.nn.init.constant_(module.weight, value)
        average.update()
    copy = AverageWeights(module)
    copy.load_state_dict(average.state_dict())
    copy.apply()
    assert 0.9 < float(module.weight.detach()) < 1
