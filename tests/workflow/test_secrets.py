"""No file that a run writes holds a token or where its user's home lies."""

import shutil


def holders(folder, marks):
    """List the files below the folders of results that hold a mark, and which."""
    files = [
        path
        for name in ("results", "logs", "reports")
        for path in (folder / name).rglob("*")
        if path.is_file()
    ]
    assert len(files) > 50
    contents = ((path, path.read_bytes()) for path in files)
    return [
        f"{path.relative_to(folder)}: {mark}"
        for path, content in contents
        for mark in marks
        if mark.encode() in content
    ]


def test_a_finished_study_holds_neither(undisturbed):
    assert holders(undisturbed.folder, undisturbed.marks().values()) == []


def test_a_study_of_a_model_below_home_holds_neither_even_if_it_fails(project):
    given = project.folder / "given"
    shutil.copytree(project.folder / "results" / "models" / "tiny" / "weights", given)
    model = {"name": "given", "family": "llava", "visual_tokens": 100, "path": str(given)}
    project.change(models=[model], strategies=["full", "saliency"], budgets=[20], study="below")
    project.run()
    said = (project.folder / "results" / "below" / "study.json").read_text()
    assert '"path": "~/study/given"' in said
    assert holders(project.folder, project.marks().values()) == []
    model["path"] = str(project.folder / "gone")
    project.change(models=[model])
    assert "~/study/gone is not a folder" in project.run(fails=True)
    assert "Traceback" in (project.folder / "logs" / "model" / "given.log").read_text()
    assert holders(project.folder, project.marks().values()) == []
