"""The files of one reconstructed case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

import disinr_monai
from disinr_monai.data.case import is_simulated
from disinr_monai.errors import InputError
from disinr_monai.modality import Modality
from disinr_monai.operators.coils import to_complex
from disinr_monai.output.dicom import DicomWriter
from disinr_monai.output.pictures import save_panels
from disinr_monai.runtime.files import atomic_path, prepare_output_dir, staged_folder


class CaseWriter:
    """Write the files of a case into ``output_dir/NAME/``: all of them, or none.

    Args:
        output_dir: folder of the results.
        modality: how images are shown and saved.
        save_complex: also the complex image of MRI, ``NAME_recon_complex.nii.gz``.
        save_numpy: also ``NAME_recon.npy``, float32 in the array order of the NIfTI (``NAME_recon_complex.npy`` with
            ``save_complex``).
        dicom: also ``dicom/*.dcm``.
        method: how the images are made, for the NIfTI's ``descrip``.
    """

    def __init__(
        self,
        output_dir: Path,
        modality: Modality,
        save_complex: bool = False,
        save_numpy: bool = False,
        dicom: DicomWriter | None = None,
        method: str = "disinr",
    ) -> None:
        self.output_dir, self.facts, self.method = output_dir, modality, method
        self.save_complex, self.save_numpy, self.dicom = save_complex, save_numpy, dicom

    def physical(self, case: Mapping[str, Any], image: Tensor) -> np.ndarray:
        """Convert a network image to the units that are saved."""
        scale = case["image_scale"] * case.get("output_scale", 1.0)
        physical = self.facts.physical(image.detach().cpu().float(), scale) + case.get("output_offset", 0.0)
        return np.asarray(physical, dtype=np.float32)

    def reference(self, case: Mapping[str, Any]) -> np.ndarray | None:
        """Convert the reference of a case to the same units; None if there is none."""
        return self.physical({**case, "image_scale": 1.0}, case["reference"]) if "reference" in case else None

    def write(self, case: Mapping[str, Any], image: Tensor, affine: np.ndarray, panels: Mapping[str, Tensor]) -> Path:
        """Write all files of a case and return its picture.

        Args:
            case: the measured case.
            image: network image ``(C, *S)``.
            affine: of the image, RAS mm; another one than that of the case on another grid.
            panels: display images by title.

        Raises:
            InputError: the folder cannot be written, or the image does not fit DICOM.
        """
        name = case["name"]
        physical = self.physical(case, image)
        text = f"{'SIMULATED, ' if is_simulated(case) else ''}disinr_monai {disinr_monai.__version__}, {self.method}"
        prepare_output_dir(self.output_dir)
        with staged_folder(self.output_dir / name, own=(f"{name}_recon*", f"dicom/{name}*.dcm")) as folder:
            write_nifti(folder / f"{name}_recon.nii.gz", physical, affine, text)
            if self.save_numpy:
                np.save(folder / f"{name}_recon.npy", physical, allow_pickle=False)
            if self.save_complex and image.shape[0] % 2 == 0:
                scale = case["image_scale"] * case.get("output_scale", 1.0)
                # A second image, with the second set of coil maps, where the object wraps around the field of view.
                for number, values in enumerate(np.asarray(to_complex(image.detach().cpu().float()) * scale), 1):
                    stem = f"{name}_recon_complex" + (f"_set{number}" if number > 1 else "")
                    write_nifti(folder / f"{stem}.nii.gz", values, affine, text)
                    if self.save_numpy:
                        np.save(folder / f"{stem}.npy", values, allow_pickle=False)
            if self.dicom is not None:
                (folder / "dicom").mkdir()
                self._write_dicom(folder / "dicom", {**case, "affine": affine}, physical)
            reference = case.get("reference")
            save_panels(
                folder / f"{name}_recon.png",
                panels,
                None if reference is None else self.facts.display(reference.float(), 1.0),
                view_affine(case),
                self.facts.white,
            )
        return self.output_dir / name / f"{name}_recon.png"

    def _write_dicom(self, folder: Path, case: Mapping[str, Any], image: np.ndarray) -> None:
        try:
            self.dicom.write(folder, case, image)
        except InputError:
            raise
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, NotImplementedError) as error:
            # Whatever a damaged source leads to, without its value, which may name a person.
            raise InputError(
                f"{case['name']}: the header of its DICOM source cannot be taken over ({type(error).__name__}); leave "
                "--dicom out"
            ) from error


def view_affine(case: Mapping[str, Any]) -> np.ndarray | None:
    """The affine for the radiological view; None where the position of the patient is unknown."""
    unknown = "unknown" in str(case["info"].get("geometry", ""))
    return None if unknown else np.asarray(case["affine"], dtype=float)


def write_nifti(path: Path, image: Tensor | np.ndarray, affine: np.ndarray, description: str = "") -> None:
    """Write an image ``(H, W)`` or ``(H, W, D)`` with its affine in mm (float32, or complex64)."""
    import nibabel

    array = np.asarray(image)
    array = array.astype(np.complex64 if np.iscomplexobj(array) else np.float32)
    volume = nibabel.Nifti1Image(array[..., None] if array.ndim == 2 else array, affine)
    volume.header.set_xyzt_units("mm")
    volume.header["descrip"] = description.encode("ascii", "replace")[:79]  # 80 bytes with their end
    with atomic_path(path) as temporary:
        nibabel.save(volume, temporary)
