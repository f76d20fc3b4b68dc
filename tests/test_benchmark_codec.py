import json

from benchmarks import codec


def test_codec_benchmark(capsys, test_data, tmp_path):
    (tmp_path / "apple.mp4").symlink_to((test_data / "videos/apple.mp4").resolve())
    assert codec.main(["--seeds", "900000:900001", "--videos", str(tmp_path), "--json"]) == 0
    results = {row["name"]: row["value"] for row in json.loads(capsys.readouterr().out)["results"]}
    assert results["held-out procedural clips"] > 25
    assert results["real clips: apple"] == results["real clips"] > 29
    assert codec.main(["--seeds", "3"]) == 2
