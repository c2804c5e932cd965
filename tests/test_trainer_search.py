"""`Trainer.hyperparameter_search` with our sampler: each trial trains what its genes say."""

from __future__ import annotations

import optuna
import pytest
import torch
from small import small_resnet
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_biotune import BioTuneModel, BioTuneModelInit, BioTuneSampler, Genotype
from hf_biotune.evolution import genotype_of, plan_of
from hf_biotune.exceptions import GenotypeError


class Watch(TrainerCallback):
    """Takes down what was trained, and at which rates."""

    def __init__(self) -> None:
        self.trained: list[dict[str, float]] = []

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        assert isinstance(model, BioTuneModel)
        assert {p for p in model.parameters() if p.requires_grad} == {
            p for group in optimizer.param_groups for p in group["params"]
        }
        self.trained.append(
            {group["block"]: group["initial_lr"] / args.learning_rate
             for group in optimizer.param_groups}
        )  # fmt: skip


@pytest.fixture
def init():
    return BioTuneModelInit(small_resnet)


@pytest.fixture
def search(init, digits_train, digits_validation, tmp_path):
    def run(watch, **options):
        trainer = Trainer(
            model_init=init,
            args=TrainingArguments(
                str(tmp_path),
                max_steps=2,
                per_device_train_batch_size=20,
                learning_rate=1e-3,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                use_cpu=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=digits_train,
            eval_dataset=digits_validation,
            **init.trainer_kwargs([watch]),
        )
        settings = {
            "hp_space": init.hp_space,
            "n_trials": 4,
            "direction": "minimize",
            "backend": "optuna",
            "sampler": BioTuneSampler(init.partition.names, population_size=3, n_elites=1),
            "study_name": "trainer",
            "load_if_exists": True,
        }
        return trainer, trainer.hyperparameter_search(**settings | options)

    return run


@pytest.mark.slow
def test_each_trial_trains_the_blocks_and_rates_of_its_genes(init, search):
    storage, watch = optuna.storages.InMemoryStorage(), Watch()
    _, best = search(watch, storage=storage)
    study = optuna.load_study(study_name="trainer", storage=storage)
    assert len(watch.trained) == len(study.trials) == 4
    for trained, trial in zip(watch.trained, study.trials, strict=True):
        genotype = genotype_of(trial, init.partition.names).repaired()
        assert trained == pytest.approx(genotype.decode(init.partition))
    assert {plan_of(trial).generation for trial in study.trials} == {0, 1}
    assert best.objective == study.best_value
    number = int(best.run_id)
    assert init.config_of(best.hyperparameters).lr_multipliers == pytest.approx(
        watch.trained[number]
    )


@pytest.mark.slow
def test_the_winner_is_trained_again_from_its_hyperparameters(init, search):
    trainer, best = search(Watch(), n_trials=2)
    assert trainer.model is None
    trainer.train(trial=optuna.trial.FixedTrial(best.hyperparameters))
    config = trainer.model.active_peft_config
    assert config.lr_multipliers == init.config_of(best.hyperparameters).lr_multipliers
    # The same seed, and so the same objective.
    assert trainer.evaluate()["eval_loss"] == pytest.approx(best.objective, rel=1e-5)


def test_training_arguments_are_searched_beside_the_genes(init, search):
    def space(trial):
        return init.hp_space(trial) | {"weight_decay": trial.suggest_float("weight_decay", 0, 0.1)}

    _, best = search(Watch(), n_trials=2, hp_space=space)
    assert 0 < best.hyperparameters["weight_decay"] < 0.1
    assert len(best.hyperparameters) == len(init.partition) + 2


def test_without_a_trial_every_block_is_trained_at_the_base_rate(init):
    model = init()
    assert model.active_peft_config.lr_multipliers == dict.fromkeys(init.partition.names, 1.0)
    assert all(p.requires_grad for p in model.get_base_model().parameters())


def test_genes_that_select_no_block_train_the_most_important_one(init):
    genes = dict.fromkeys((f"importance:{name}" for name in init.partition.names), 0.2)
    trial = optuna.trial.FixedTrial(genes | {"importance:layer3": 0.5, "freezing_threshold": 1.0})
    assert list(init.config_of(trial).lr_multipliers) == ["layer3"]
    assert list(init(trial).active_peft_config.lr_multipliers) == ["layer3"]


def test_the_blocks_and_the_norm_statistics_are_those_that_were_asked_for():
    init = BioTuneModelInit(small_resnet, blocks="layers", norm_statistics="frozen")
    assert init.partition.names != BioTuneModelInit(small_resnet).partition.names
    genotype = Genotype.from_multipliers({init.partition.names[0]: 2.0}, init.partition)
    config = init.config_of(
        {f"importance:{n}": g for n, g in zip(init.partition.names, genotype.importances)}  # noqa: B905
        | {"freezing_threshold": genotype.freezing_threshold}
    )
    assert config.norm_statistics == "frozen"
    assert config.lr_multipliers == pytest.approx({init.partition.names[0]: 2.0})
    norms = [m for m in init().modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)


def test_parameters_without_a_gene_are_refused(init):
    with pytest.raises(GenotypeError, match="no parameter 'importance:stem'; suggest every gene"):
        init.config_of({"learning_rate": 0.1})
