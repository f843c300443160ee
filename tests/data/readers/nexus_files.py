"""CIL's files, written as its NEXUSDataWriter lays them out.

The sinograms are exact chords in CIL's own frame: source and detector turn by minus the angle, images have y upwards.
"""

import h5py
import numpy as np

# x, y, z in CIL's frame, radius, attenuation in 1/mm: a body with an insert that is off centre in all directions.
BALLS = [(0.0, 0.0, 0.0, 30.0, 0.02), (9.0, 14.0, 4.0, 7.0, 0.01)]
ANGLES = np.arange(0, 360, 3.0)
CONE = {"source": [0.0, -200.0, 0.0], "detector": [0.0, 150.0, 0.0]}


def system(**changes) -> dict:
    """A CIL geometry in 3-D; 2-D ones leave the last components out."""
    return {
        "direction_x": [1.0, 0.0, 0.0],
        "direction_y": [0.0, 0.0, 1.0],
        "axis": [0.0, 0.0, 0.0],
        "axis_direction": [0.0, 0.0, 1.0],
        "n": (84, 40),
        "size": (1.6, 2.0),
        "origin": "bottom-left",
        "angles": ANGLES,
        "initial": 20.0,
        "unit": "degree",
        "is_3d": False,
        "labels": ("angle", "horizontal"),
        **changes,
    }


def measured(geometry: dict) -> np.ndarray:
    """Chords of the balls, (angle, vertical, horizontal), straight from CIL's definition."""
    axis = np.array(geometry["axis"])
    is_cone = "source" in geometry
    ray = np.array(geometry["detector"]) - geometry["source"] if is_cone else np.array(geometry["ray"])
    a, b = ray[:2] / np.linalg.norm(ray[:2])
    align = np.array([[b, -a, 0], [a, b, 0], [0, 0, 1]])
    (nh, nv), (sh, sv) = geometry["n"], geometry["size"]
    nv = nv if geometry["is_3d"] else 1
    h, v = (np.arange(nh) - (nh - 1) / 2) * sh, (np.arange(nv) - (nv - 1) / 2) * sv
    h = -h if "right" in geometry["origin"] else h
    v = -v if "top" in geometry["origin"] else v
    cells = np.array(geometry["detector"]) + h[:, None] * geometry["direction_x"]
    cells = cells + v[:, None, None] * geometry["direction_y"]
    result = []
    for angle in np.radians(geometry["angles"] + geometry["initial"]):
        turn = np.array([[np.cos(angle), np.sin(angle), 0], [-np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
        frame = turn @ align
        points = (cells - axis) @ frame.T
        if is_cone:
            start = frame @ (np.array(geometry["source"]) - axis)
            direction = points - start
        else:
            start, direction = points, np.broadcast_to(frame @ np.array(geometry["ray"]), points.shape)
        direction = direction / np.linalg.norm(direction, axis=-1, keepdims=True)
        total = np.zeros(points.shape[:-1])
        for *centre, radius, value in BALLS:
            to_centre = np.array(centre) - start
            along = (to_centre * direction).sum(-1)
            distance = np.square(to_centre).sum(-1) - along**2
            total += value * 2 * np.sqrt(np.maximum(radius**2 - distance, 0))
        result.append(total)
    return np.array(result, dtype=np.float32)


def write(path, geometry: dict, data: np.ndarray, leave_out: str = "", **attributes) -> str:
    """The layout of CIL's NEXUSDataWriter (its source, version 21 to 24), entry by entry."""
    is_cone, n = "source" in geometry, 3 if geometry["is_3d"] else 2
    with h5py.File(path, "w") as file:
        file.attrs["creator"] = np.bytes_("NEXUSDataWriter.py")
        file.attrs["NeXus_version"] = "4.3.0"
        file.create_group("entry1/tomo_entry").attrs["NX_class"] = "NXentry"
        dataset = file.create_dataset("entry1/tomo_entry/data/data", data=data)
        values = {"data_type": "AcquisitionData", "geometry": "cone" if is_cone else "parallel", "num_channels": 1}
        values |= {"dimension": "3D" if n == 3 else "2D", "num_pixels_h": geometry["n"][0]}
        values |= {"pixel_size_h": geometry["size"][0], "panel_origin": geometry["origin"]}
        values |= {f"dim{i}": label for i, label in enumerate(geometry["labels"])}
        config = {"detector/direction_x": "direction_x", "detector/position": "detector"}
        config |= {"source/position": "source"} if is_cone else {"ray/direction": "ray"}
        config |= {"rotation_axis/position": "axis"}
        if n == 3:
            values |= {"num_pixels_v": geometry["n"][1], "pixel_size_v": geometry["size"][1]}
            config |= {"detector/direction_y": "direction_y", "rotation_axis/direction": "axis_direction"}
        dataset.attrs.update(values | attributes)
        for name, key in config.items():
            file[f"entry1/tomo_entry/config/{name}"] = np.array(geometry[key][:n], dtype=np.float32)
        file["entry1/tomo_entry/config/angles"] = geometry["angles"].astype(np.float32)
        file["entry1/tomo_entry/config/angles"].attrs["angle_unit"] = geometry["unit"]
        file["entry1/tomo_entry/config/angles"].attrs["initial_angle"] = geometry["initial"]
        if leave_out in file:
            del file[leave_out]
        elif leave_out:
            del dataset.attrs[leave_out]
    return str(path)


PARALLEL = {"ray": [0.0, 1.0, 0.0], "detector": [0.0, 0.0, 0.0], "n": (84, 40), "size": (0.9, 2.0)}
