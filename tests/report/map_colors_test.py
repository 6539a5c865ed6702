"""Which colors and shapes the classes of a map have."""

import numpy as np

from byol_jax.report import map_colors


def make_map(centers, *, missing=()):
    labels = [c for c in range(len(centers)) if c not in missing for _ in range(3)]
    points = np.array([centers[c] for c in labels], float).T.tolist()
    return {"classes": [str(c) for c in range(len(centers))], "labels": labels, "now": points}


def test_few_classes_have_a_color_each():
    looks = map_colors.choose(make_map([(c, 0) for c in range(8)]))
    assert [color for color, _ in looks] == list(range(8))


def test_classes_side_by_side_differ_in_color_and_those_of_one_color_in_shape():
    centers = [(c // 2, c % 2) for c in range(20)]  # two rows
    looks = map_colors.choose(make_map(centers))
    assert len(set(looks)) == 20
    for a, one in enumerate(centers):
        for b, other in enumerate(centers[:a]):
            is_near = np.hypot(*np.subtract(one, other)) < 1.5
            assert not (is_near and looks[a][0] == looks[b][0]), (a, b)


def test_a_class_without_a_point_has_a_look_too():
    looks = map_colors.choose(make_map([(c, 0) for c in range(10)], missing=(3, 9)))
    assert len(set(looks)) == 10
    assert map_colors.choose(make_map([])) == []
