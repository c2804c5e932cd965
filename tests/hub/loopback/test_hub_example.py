import importlib.util
from pathlib import Path

from hub_examples import make_base, make_tuned

EXAMPLE = Path(__file__).parents[3] / "examples" / "push_to_hub.py"


def test_the_example_pushes_an_adapter_and_loads_it_back(hub, name, tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("push_to_hub", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    make_base().save_pretrained(tmp_path / "base")
    make_tuned().save_pretrained(tmp_path / "adapter")
    module.main(
        repo_id=name,
        adapter=str(tmp_path / "adapter"),
        model=str(tmp_path / "base"),
        labels=10,
        image_size=32,
        private=False,
    )
    output = capsys.readouterr().out
    assert f"pushed: {hub.url}/{name}/commit/" in output
    assert "blocks and rates: {'head': 1.0, 'layer3': 2.5}" in output
    assert "the same outputs: True" in output
