"""A Lightning Trainer takes the data module."""

import pytest
import torch
from sa1b_files import IDS

import sa1b_fastdecode as fd
from sa1b_fastdecode.integrations import lightning

PACKAGE = lightning._package


def test_lightning_is_asked_for_where_it_is_missing(root, monkeypatch):
    monkeypatch.setattr(lightning, "_package", None)
    with pytest.raises(ImportError, match="pip install lightning"):
        lightning.SA1BDataModule(root)


@pytest.mark.filterwarnings("ignore")  # its own, of what is out of date in it
@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_trainer_takes_the_data_module(root, num_workers):
    if PACKAGE is None:
        pytest.skip("Lightning is not installed")

    class Model(PACKAGE.LightningModule):
        def __init__(self):
            super().__init__()
            self.scale = torch.nn.Parameter(torch.zeros(()))
            self.seen = {"train": [], "val": []}

        def training_step(self, batch, index):
            assert isinstance(batch["masks"], fd.RLEBatch)
            self.seen["train"].append((self.current_epoch, *batch["image_ids"]))
            return self.scale * batch["masks"].decode(dtype=torch.float32).mean()

        def validation_step(self, batch, index):
            self.seen["val"] += batch["image_ids"]

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.1)

    def fit(**options):
        module = lightning.SA1BDataModule(root, 2, num_workers=num_workers, **options)
        model = Model()
        PACKAGE.Trainer(
            max_epochs=2,
            accelerator="cpu",
            num_sanity_val_steps=0,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        ).fit(model, datamodule=module)
        batches = model.seen["train"]
        epochs = [[i for e, *ids in batches if e == epoch for i in ids] for epoch in (0, 1)]
        return epochs, model.seen["val"]

    epochs, validated = fit(tar_indices=[0], val_tar_indices=[1], dataset_options={"seed": 1})
    assert epochs[0] != epochs[1]
    assert sorted(epochs[0]) == sorted(epochs[1]) == IDS[:7]
    assert validated == 2 * IDS[7:]
    epochs, validated = fit()
    assert [sorted(ids) for ids in epochs] == [sorted(IDS)] * 2
    assert validated == []
