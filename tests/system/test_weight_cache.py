"""A process writes packed weights once; later ones map them, say the same, and trust no damaged file."""

import subprocess

import processes

QUESTION = {"prompt": "Once upon a time, in a small village by the sea,", "max_tokens": 24, "temperature": 0}


def answer(start_serve, folder):
    """What a new server says, whether it maps a file of the folder, and its warnings about caches."""
    server = start_serve("--weight-cache", folder, "--log-format", "json")
    process = server.processes["serve"]
    text = server.client().completions.create(model=processes.MODEL_NAME, **QUESTION).choices[0].text
    maps = f"{folder}/{processes.MODEL.resolve().name}" in open(f"/proc/{process.popen.pid}/maps").read()
    warnings = [line for line in process.lines() if line["level"] == "warn" and "cache of packed" in line["msg"]]
    process.stop()
    return text, maps, warnings


def test_a_second_start_maps_what_the_first_wrote(start_serve, tmp_path):
    folder = tmp_path / "cache"
    expected, maps, _ = answer(start_serve, "off")
    assert expected and not maps
    assert answer(start_serve, folder) == (expected, True, [])
    (file,) = folder.iterdir()
    written = file.stat()
    assert answer(start_serve, folder) == (expected, True, [])
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    with open(file, "r+b") as damaged:
        damaged.seek(200)
        damaged.write(b"damage")
    text, maps, warnings = answer(start_serve, folder)
    assert (text, maps) == (expected, True) and "damaged" in warnings[0]["why"]
    assert [f.name for f in folder.iterdir()] == [file.name] and file.stat().st_ino != written.st_ino


def test_an_unknown_quantization_is_refused_by_name():
    processes.require_files()
    command = [processes.TROUPE, "executor", "--model", processes.MODEL, "--quantization", "int3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and '"int3" is not one of none|int8|int4' in done.stderr
