"""``xrecon <command>``: one thin function a command.

Exit code 0 when all went well, 1 when not; then one line on standard error says what is wrong and what to do.
"""

from __future__ import annotations

import difflib
import functools
import gc
import inspect
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any

import fire
from fire import decorators

from . import __version__
from .files import InputError, check_format, check_readable, check_writable, to_json

PACKAGE = Path(__file__).parent
# In the bundle the weights lie beside the package, in an installed wheel within it.
MODEL = str((PACKAGE if (PACKAGE / "models").is_dir() else PACKAGE.parent) / "models" / "fine.pt")


def reconstruct(
    pa: str,
    lateral: str,
    output: str,
    *,
    model: str = MODEL,
    format: str = "nifti",
    spatial_size: int | None = None,
    field_of_view_mm: float | None = None,
    invert: bool = False,
    flip_lateral: bool = False,
    keep_orientation: bool = False,
    picture: str | None = None,
    accept_any_view: bool = False,
    style: str | None = None,
    view: bool = True,
    labels: str | None = None,
    deviation: str | None = None,
) -> None:
    """Reconstruct a CT volume from two X-ray files. No CT is needed.

    Beside the volume a JSON file says how well it explains the X-rays (consistency), and what it was made from; a page
    shows it.

    Args:
        pa: posteroanterior chest X-ray: PNG, JPEG, NIfTI or DICOM.
        lateral: left lateral chest X-ray of the same patient.
        output: CT to write in HU: a file (.nii.gz), or with --format dicom a new folder for the series.
        model: weights, a plain state dict.
        format: nifti or dicom.
        spatial_size: edge of the volume that the weights were trained for, where their file does not say.
        field_of_view_mm: length of the files' longer side on the detector, where they do not say.
        invert: the files show dense as dark.
        flip_lateral: the lateral faces the viewer's right: mirror it (done by itself where it is seen).
        keep_orientation: turn, mirror and exchange nothing.
        picture: PNG to write of both X-rays as they were placed, with the box of the lungs that were found.
        accept_any_view: do not refuse DICOM files whose tags say another view or different patients, nor what looks
            like no chest.
        style: grey value normalisation, see docs/radiographs.md.
        view: also write a page to look at the CT, under its name with .html (docs/viewer.md); false leaves it out.
        labels: NIfTI to write of lungs and free air as the network sees them (1, 2 right and left lung; 3, 4 free air).
        deviation: NIfTI to write of how far each voxel may be wrong, standard deviation in HU.
    """
    from .networks.weights import check_weights
    from .workflows.reconstruct import check_request, reconstruct_files

    output_format = check_format(format)
    check_request(pa, lateral, output, output_format, picture, labels, deviation)
    check_weights(model)
    with _importing():
        from .workflows.predictor import Predictor

    predictor = Predictor(
        model,
        spatial_size,
        field_of_view_mm=field_of_view_mm,
        invert=invert,
        flip_lateral=flip_lateral,
        keep_orientation=keep_orientation,
        accept_any_view=accept_any_view,
        style=style,
    )
    report = reconstruct_files(pa, lateral, output, predictor, output_format, view, picture, labels, deviation)
    for warning in report["warnings"]:
        print(f"xrecon: warning: {warning}", file=sys.stderr)
    print(f"wrote {output} (consistency {report['consistency']['score']:.2f})")


def reconstruct_folder(
    folder: str,
    output: str,
    *,
    model: str = MODEL,
    format: str = "nifti",
    segment: bool = False,
    spatial_size: int | None = None,
    field_of_view_mm: float | None = None,
    invert: bool = False,
    flip_lateral: bool = False,
    keep_orientation: bool = False,
    accept_any_view: bool = False,
    style: str | None = None,
    view: bool = True,
) -> None:
    """Reconstruct a folder of patients. Run again to resume; a bad case does not stop the others.

    Args:
        folder: at any depth, a folder a patient with files called pa and lateral, DICOM studies, or radiographs.nii.gz.
        output: receives a folder a case, and summary.csv with consistency, warnings and where the pages are.
        model: weights, a plain state dict.
        format: nifti or dicom.
        segment: measure lungs and pneumothorax in each reconstruction.
        spatial_size: edge of the volume that the weights were trained for, where their file does not say.
        field_of_view_mm: length of the files' longer side on the detector, where they do not say.
        invert: the files show dense as dark.
        flip_lateral: the laterals face the viewer's right: mirror them (done by itself where it is seen).
        keep_orientation: turn, mirror and exchange nothing.
        accept_any_view: do not refuse DICOM files whose tags say another view or different patients, nor what looks
            like no chest.
        style: grey value normalisation, see docs/radiographs.md.
        view: also write a page to look at beside each CT (docs/viewer.md); false leaves it out.
    """
    check_writable(Path(output) / "summary.csv")
    check_readable(folder, "folder", "give one with the radiographs of many patients")
    with _importing():
        from .workflows import reconstruct_folder as batch
        from .workflows.predictor import Predictor

    predictor = Predictor(
        model,
        spatial_size,
        field_of_view_mm=field_of_view_mm,
        invert=invert,
        flip_lateral=flip_lateral,
        keep_orientation=keep_orientation,
        accept_any_view=accept_any_view,
        style=style,
    )
    summary = batch.reconstruct_folder(folder, output, predictor, check_format(format), segment, view)
    print(f"{summary.made} reconstructed, {summary.reused} made before; {summary.table}")
    for case, reason in summary.failed.items():
        print(f"xrecon: {case}: {reason}", file=sys.stderr)
    if summary.failed:
        count = summary.made + summary.reused + len(summary.failed)
        raise InputError(f"{len(summary.failed)} of {count} cases failed; {summary.table} says why")


def dicomweb(
    server: str,
    *,
    study: str | None = None,
    patient: str | None = None,
    output_dir: str | None = None,
    model: str = MODEL,
    segment: bool = False,
    spatial_size: int | None = None,
    field_of_view_mm: float | None = None,
    invert: bool = False,
    flip_lateral: bool = False,
    accept_any_view: bool = False,
    style: str | None = None,
) -> None:
    """Fetch a study's PA and lateral from a DICOMweb server, reconstruct, and store the CT in that study.

    User and password are read from ~/.netrc. Needs the extra dicomweb.

    Args:
        server: root of the DICOMweb service, of Orthanc http://HOST:8042/dicom-web.
        study: StudyInstanceUID.
        patient: PatientID, instead of the study.
        output_dir: new folder that keeps what is stored, and the reports as JSON.
        model: weights, a plain state dict.
        segment: also store lungs and pneumothorax as DICOM SEG and structured report; needs the extra dicom.
        spatial_size: edge of the volume that the weights were trained for, where their file does not say.
        field_of_view_mm: length of the images' longer side on the detector, where they do not say.
        invert: the images show dense as dark.
        flip_lateral: the lateral faces the viewer's right: mirror it.
        accept_any_view: do not refuse images of different patients, nor what looks like no chest.
        style: grey value normalisation, see docs/radiographs.md.
    """
    with _importing():
        from .workflows.dicomweb import reconstruct_study
        from .workflows.predictor import Predictor

    if output_dir is not None:
        check_writable(output_dir, folder=True)
    predictor = Predictor(
        model,
        spatial_size,
        field_of_view_mm=field_of_view_mm,
        invert=invert,
        flip_lateral=flip_lateral,
        accept_any_view=accept_any_view,
        style=style,
    )
    report = reconstruct_study(server, predictor, study, patient, output_dir, segment)
    for warning in report["warnings"]:
        print(f"xrecon: warning: {warning}", file=sys.stderr)
    print(f"stored {report['stored']} images in study {report['study']}", end=" ")
    print(f"(consistency {report['consistency']['score']:.2f})")


def simulate(ct: str, output_dir: str, *, spatial_size: int = 224, series: str | None = None) -> None:
    """Standardise one chest CT and simulate its two radiographs.

    Args:
        ct: NIfTI, MHA, NRRD, HDF5 or a folder of DICOM files.
        output_dir: folder for ct.nii.gz, radiographs.nii.gz, pa and lateral as .nii.gz and .png.
        spatial_size: voxels along each edge of the volume.
        series: SeriesInstanceUID, where a DICOM folder holds several.
    """
    check_writable(output_dir, folder=True)
    check_readable(ct, "file or folder")
    with _importing():
        from .workflows.simulate import simulate_case

    _tell(simulate_case(ct, output_dir, spatial_size=spatial_size, series=series))
    print(f"wrote {output_dir}")


def prepare(
    ct_folder: str,
    output_dir: str,
    *,
    spatial_size: int = 224,
    workers: int = 2,
    seed: int = 0,
    cluster: str | None = None,
    patient_pattern: str | None = None,
) -> None:
    """Turn a folder of chest CTs into a dataset folder that the configs read. Run again to resume.

    Args:
        ct_folder: CTs in any of the formats that `simulate` reads, at any depth.
        output_dir: dataset folder: a folder a case, and manifest.json with the split and what was left out and why.
        spatial_size: voxels along each edge of the volumes.
        workers: processes at work.
        seed: of the patient-wise split.
        cluster: address of a Dask scheduler (tcp://...) that does the work instead; needs dask[distributed].
        patient_pattern: regular expression that finds the patient in a CT's path, where the files do not name one.
    """
    check_writable(Path(output_dir) / "manifest.json")
    check_readable(ct_folder, "folder", "give the folder that holds your CTs")
    from .datasets.prepare import prepare as prepare_folder

    summary = prepare_folder(
        ct_folder,
        output_dir,
        spatial_size=spatial_size,
        workers=workers,
        seed=seed,
        cluster=cluster,
        patient_pattern=patient_pattern,
    )
    splits = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    print(f"{summary.prepared + summary.reused} cases ({splits}), {summary.reused} of them made before")
    for case, warnings_ in summary.warnings.items():
        for warning in warnings_:
            print(f"xrecon: warning: {case}: {warning}", file=sys.stderr)
    if summary.excluded:
        print(f"{summary.excluded} CTs left out; {summary.manifest} says why")


def evaluate(pred: str, true: str) -> None:
    """Print the image metrics of a reconstructed against a true CT as one JSON object.

    Args:
        pred: reconstructed CT, NIfTI in HU, in the chest frame.
        true: true CT, NIfTI in HU, on the same grid.
    """
    for volume in (pred, true):
        check_readable(volume)
    with _importing():
        from .workflows.evaluate import compare_files

    print(to_json(compare_files(pred, true)))


def segment(
    ct: str,
    output: str,
    *,
    segmenter: str = "classical",
    weights: str | None = None,
    format: str = "nifti",
    series: str | None = None,
    explain: bool = False,
    view: bool = True,
) -> None:
    """Segment lungs and pneumothorax in a CT; writes the label map and its statistics.

    Args:
        ct: NIfTI, MHA, NRRD, HDF5 or a folder of DICOM files.
        output: label map to write (.nii.gz, with .json and .png beside it): 1 right lung, 2 left lung, 3 and 4
            free air, right and left; or with --format dicom a DICOM SEG (.dcm, with .json and .sr.dcm).
        segmenter: classical, sam or lungmask.
        weights: local folder or file with the weights of sam or lungmask.
        format: nifti or dicom; dicom needs a CT in DICOM.
        series: SeriesInstanceUID, where a DICOM folder holds several.
        explain: say of each pocket of air why it counts as a pneumothorax or not.
        view: also write a page to look at, under the label map's name with .html; false leaves it out.
    """
    from .workflows.segment import in_words, segment_file

    statistics = segment_file(
        ct,
        output,
        segmenter=segmenter,
        weights=weights,
        output_format=check_format(format),
        explain=explain,
        series=series,
        view=view,
    )
    _tell(statistics)
    for line in in_words(statistics["pockets"]) if explain else []:
        print(f"xrecon: {line}", file=sys.stderr)
    print(to_json(statistics))


def view(
    volume: str,
    labels: str | None = None,
    *,
    output: str | None = None,
    deviation: str | None = None,
    series: str | None = None,
) -> None:
    """Write one HTML page that shows a CT in three planes and rendered. It needs no network.

    Args:
        volume: NIfTI, MHA, NRRD, HDF5 or a folder of DICOM files.
        labels: label map of the CT, NIfTI, shown over it.
        output: page to write (.html); by default beside the CT under its name.
        deviation: standard deviation in HU, NIfTI on the CT's grid, shown over it.
        series: SeriesInstanceUID, where a DICOM folder holds several.
    """
    from .workflows.view import view_file

    print(f"wrote {view_file(volume, labels, output, deviation_path=deviation, series=series)}")


def app(*, model: str = MODEL, port: int = 8571) -> None:
    """Serve a page to this machine's own browser: drop two X-rays or a CT, look, measure, download.

    Nothing is sent elsewhere, and what was dropped is deleted when the page is closed. Ctrl+C ends it.

    Args:
        model: weights, a plain state dict.
        port: of 127.0.0.1; 0 takes a free one.
    """
    from .app.server import serve

    serve(model, port)


def convert_published(checkpoint: str, output: str, *, spatial_size: int = 224) -> None:
    """Convert the checkpoint that the paper's authors released into weights for configs/published_224.yaml.

    Args:
        checkpoint: <epoch>_net_G.pth as released; only tensors are unpickled.
        output: state dict to write.
        spatial_size: edge of the volume that it was trained for.
    """
    check_writable(output, sources=[checkpoint])
    check_readable(checkpoint)
    from .networks.published import convert_state, read_published, unused_entries
    from .networks.weights import save_weights

    state = read_published(checkpoint, spatial_size)
    for reason, names in unused_entries(state).items():
        print(f"{len(names)} entries are not used ({names[0]} ...): {reason}")
    save_weights(convert_state(state, spatial_size), output, spatial_size)
    print(f"wrote {output}")


def export(weights: str, output: str, *, spatial_size: int | None = None) -> None:
    """Export weights to a file that runs without this package.

    Args:
        weights: plain state dict.
        output: .pt2 for a program of torch.export, or .onnx. Input (1, 2, S, S), output (1, 1, S, S, S).
        spatial_size: edge of the volume that the weights were trained for, where their file does not say.
    """
    check_writable(output, sources=[weights])
    from .networks.weights import check_weights, load_generator

    check_weights(weights)
    from .networks.export import export_generator

    export_generator(load_generator(weights, spatial_size), output)
    print(f"wrote {output}")


@contextmanager
def _importing() -> Iterator[None]:
    """For imports of PyTorch: all that they make stays, so to look for garbage among it, now or later, is lost time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _tell(record: dict[str, Any]) -> None:
    """Say on standard error which DICOM series was read, which ones were not, and what to look at."""
    if "series" in record:
        named = [
            f"{one['series']} ({one['description']}, {one['images']} images)"
            for one in [record, *record.get("other_series", [])]
        ]
        print(f"xrecon: read CT series {named[0]}", file=sys.stderr)
        if named[1:]:
            print(f"xrecon: not read, --series asks for one: {'; '.join(named[1:])}", file=sys.stderr)
    for warning in record.get("warnings", []):
        print(f"xrecon: warning: {warning}", file=sys.stderr)


COMMANDS: dict[str, Callable[..., None]] = {
    "reconstruct": reconstruct,
    "reconstruct-folder": reconstruct_folder,
    "dicomweb": dicomweb,
    "simulate": simulate,
    "prepare": prepare,
    "evaluate": evaluate,
    "segment": segment,
    "view": view,
    "app": app,
    "convert-published": convert_published,
    "export": export,
}
decorators.FIRE_METADATA = "_fire_metadata"  # a private name keeps it out of the help text


def main(arguments: list[str] | None = None) -> None:
    """Entry point of ``xrecon``; ``arguments`` default to those of the process."""
    warnings.filterwarnings("ignore")
    if (sys.argv[1:] if arguments is None else arguments) == ["--version"]:
        print(f"xrecon {__version__}")
        return
    start({name: _parsed(function) for name, function in COMMANDS.items()}, arguments, "xrecon")


def start(
    commands: Callable[..., object] | dict[str, Callable[..., object]],
    arguments: list[str] | None = None,
    name: str | None = None,
) -> None:
    """Call the function that the command line names, if every argument is one of its own. The scripts' entry too.

    Args:
        commands: the function, or functions by the names that choose one.
        arguments: default to those of the process.
        name: of the program, default the script's.

    Raises:
        SystemExit: with code 1 after an argument that is not known, and with one line after an :class:`.InputError`.
    """
    name = name or Path(sys.argv[0]).stem
    calls: list[Callable[[], object]] = []
    try:
        arguments = sys.argv[1:] if arguments is None else arguments
        if callable(commands):
            arguments = _checked(commands, arguments)
        elif arguments and not arguments[0].startswith("-"):
            command = _command(arguments[0], commands)
            arguments = [command, *_checked(commands[command], arguments[1:])]
        # Fire calls a function before it looks at left-over arguments. So let it only choose, then call.
        if isinstance(commands, dict):
            component: Any = {key: _chosen(function, calls) for key, function in commands.items()}
        else:
            component = _chosen(commands, calls)
        with redirect_stderr(sys.stdout) if "--help" in arguments else nullcontext():  # help is what was asked for
            fire.Fire(component, arguments, name=name)
        for call in calls:
            call()
    except InputError as error:
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        print(
            f"{name}: stopped; no file is left half-written, and the same command starts or goes on again",
            file=sys.stderr,
        )
        sys.exit(130)
    except fire.core.FireExit as exit_:
        sys.exit(1 if exit_.code else 0)


def _command(typed: str, commands: Mapping[str, object]) -> str:
    """The command that is meant; hyphen and underscore are one.

    Raises:
        InputError: there is none of this name.
    """
    if (name := typed.replace("_", "-")) in commands:
        return name
    near = difflib.get_close_matches(name, commands, 1)
    what = f"did you mean {near[0]}?" if near else f"there are {', '.join(commands)}"
    raise InputError(f"there is no command '{typed}'; {what} (--help tells what each does)")


def _checked(function: Callable[..., object], arguments: list[str]) -> list[str]:
    """``arguments`` as Fire shall read them: each option in full, once and with its value.

    Fire would take the file after a switch for its value, one argument too many for an option, the last of two equal
    options, and rather miss what a misspelt one was meant to be.

    Raises:
        InputError: an argument is unknown, missing, given twice, or one too many.
    """
    if {"--help", "-h"}.intersection(arguments):  # also behind Fire's --, as its help says
        return ["--help"]
    parameters = inspect.signature(function).parameters
    rest, last = list(arguments), []
    if "--" in rest:  # what follows is for Fire
        last, rest = rest[rest.index("--") :], rest[: rest.index("--")]
    checked: list[str] = []
    given: list[str] = []
    loose: list[str] = []
    while rest:
        argument = rest.pop(0)
        flag = _flag(argument, parameters)
        if flag is None:
            loose.append(argument)
            checked.append(argument)
            continue
        name, value = flag
        if name in given:
            raise InputError(f"--{name} is given twice")
        given.append(name)
        if value is None and str(parameters[name].annotation).startswith("bool"):
            value = rest.pop(0) if rest and rest[0].lower() in ("true", "false") else "True"
        elif value is None and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        checked.append(f"--{name}" if value is None else f"--{name}={value}")
    places = [name for name, of in parameters.items() if of.kind is of.POSITIONAL_OR_KEYWORD and name not in given]
    if missing := [name for name in places[len(loose) :] if parameters[name].default is inspect.Parameter.empty]:
        raise InputError(f"missing: {', '.join(missing)} (--help tells what it is)")
    if len(loose) > len(places) and not any(of.kind is of.VAR_POSITIONAL for of in parameters.values()):
        what = "it is one too many, or lacks the name of its option"
        raise InputError(f"'{loose[len(places)]}' is not expected: {what} (--help lists all)")
    return checked + last


def _flag(argument: str, parameters: Mapping[str, inspect.Parameter]) -> tuple[str, str | None] | None:
    """The parameter that an argument names, and the value in it; None for what is no option."""
    typed, equals, value = argument.partition("=")
    if typed.startswith("--"):
        name = typed.removeprefix("--").replace("-", "_")
        if name in parameters:
            return name, value if equals else None
        if name.startswith("no") and str(getattr(parameters.get(name[2:]), "annotation", "")).startswith("bool"):
            return name[2:], "False"
    elif len(typed) == 2 and typed[0] == "-" and typed[1].isalpha():
        meant = [name for name in parameters if name.startswith(typed[1])]
        if len(meant) == 1:
            return meant[0], value if equals else None
        if meant:
            raise InputError(f"{typed} may be {' or '.join(f'--{name}' for name in meant)}; write it in full")
        name = typed[1]
    else:
        return None
    near = difflib.get_close_matches(name, parameters, 1)
    raise InputError(f"there is no {typed}{f'; did you mean --{near[0]}?' if near else ''} (--help lists all)")


def _chosen(function: Callable[..., object], calls: list[Callable[[], object]]) -> Callable[..., None]:
    @functools.wraps(function)
    def choose(*args, **kwargs) -> None:
        calls.append(functools.partial(function, *args, **kwargs))

    return choose


def _parsed(function: Callable[..., None]) -> Callable[..., None]:
    """``function``, its arguments read as the types that it names, whatever they look like to Fire.

    So a folder called 001 stays text, and "false" is no text, which would count as true.
    """
    for name, kind in function.__annotations__.items():
        if name != "return":
            read = functools.partial(_READERS[kind.removesuffix(" | None")], name)
            function = decorators.SetParseFn(read, name)(function)
    return function


def _text(name: str, text: str) -> str:
    if text in ("True", "False"):  # Fire's word for an option without a value, and for --no<option>
        raise InputError(f"{name}: a value is missing")
    return text


def _switch(name: str, text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise InputError(f"{name}: '{text}' is neither true nor false")
    return text.lower() == "true"


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{name}: '{text}' is no whole number") from None


def _number(name: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{name}: '{text}' is no number")
    return number


_READERS: dict[str, Callable[[str, str], object]] = {"str": _text, "bool": _switch, "int": _whole, "float": _number}


if __name__ == "__main__":
    main()
