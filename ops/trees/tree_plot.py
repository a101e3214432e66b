"""A picture of one tree: what each node asks, what it gained, where missing values go."""

import torch

from tilewright.trees.plots import names_of, pyplot

SHOWN_CATEGORIES = 6
FIGURE_INCHES = 200  # the most that a figure gets in width


def plot_tree(model, index=0, *, max_depth=None, feature_names=None, precision=4, ax=None):
    """Draws a tree of a fitted model with ``arrays_``.

    A node shows its question, its gain and its cover (the sum of hessians of its rows; of squared
    errors their number); a leaf its value and cover, blue where it raises the score and red where
    it lowers it. Edges say which answer they stand for, and which one missing values take.

    Args:
        model: such as :class:`GradientBoostingRegressor`.
        index: which tree; models of several classes have one for each class in each round.
        max_depth: levels of questions that are drawn; None: all.
        feature_names: (n_features,), in place of those that the model was fitted with.
        precision: significant digits.
        ax: matplotlib's axes; None: a figure of the size that the tree needs.

    Returns:
        The axes.
    """
    if not hasattr(model, "arrays_"):
        raise ValueError(f"plot_tree needs a fitted model with trees in arrays_, got {model!r}")
    count = len(model.arrays_["tree_ptr"]) - 1
    if not 0 <= index < count:
        raise ValueError(f"index must lie in [0, {count}), got {index}")
    begin, end = model.arrays_["tree_ptr"][index : index + 2].tolist()
    left = model.arrays_["left"][begin:end].tolist()
    right = model.arrays_["right"][begin:end].tolist()
    texts = Texts(model, begin, feature_names, precision)
    places = layout(left, right, max_depth)
    if ax is None:
        leaves = 1 + max(x for x, _ in places.values())
        levels = 1 + max(depth for _, depth in places.values())
        size = (min(max(4.0, 1.3 * leaves), FIGURE_INCHES), 1 + 1.2 * levels)
        ax = pyplot("plot_tree").subplots(figsize=size, layout="constrained")[1]
    largest = model.arrays_["value"][begin:end].abs().max().item()
    for node, (x, depth) in places.items():
        leaf = left[node] < 0
        if leaf:
            text = texts.leaf(node)
        elif left[node] in places:
            text = texts.split(node)
            for is_left, child in ((True, left[node]), (False, right[node])):
                x1, depth1 = places[child]
                ax.plot([x, x1], [-depth, -depth1], color="0.6", linewidth=1, zorder=1)
                ax.text(
                    (x + x1) / 2, -(depth + depth1) / 2, texts.edge(node, is_left),
                    ha="center", va="center", fontsize=7, color="0.25", zorder=2,
                    bbox={"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"},
                )  # fmt: skip
        else:
            text = f"... {below(left, right, node)} leaves"
        box = {"boxstyle": "round,pad=0.3", "edgecolor": "0.4", "facecolor": "0.95"}
        if leaf:
            box["facecolor"] = texts.color(node, largest)
        ax.text(x, -depth, text, ha="center", va="center", fontsize=8, bbox=box, zorder=3)
    ax.set_title(texts.title(index))
    xs = [x for x, _ in places.values()]
    ax.set_xlim(min(xs) - 0.7, max(xs) + 0.7)
    ax.set_ylim(-max(depth for _, depth in places.values()) - 0.6, 0.6)
    ax.set_axis_off()
    return ax


def layout(left, right, max_depth=None):
    """{node: (x, depth)} of the nodes that are drawn: the lowest ones stand side by side, a parent
    above the middle of its children."""
    places, lowest = {}, 0
    stack = [(0, 0, False)]
    while stack:
        node, depth, children_placed = stack.pop()
        if left[node] < 0 or depth == max_depth:
            places[node] = (lowest, depth)
            lowest += 1
        elif children_placed:
            places[node] = ((places[left[node]][0] + places[right[node]][0]) / 2, depth)
        else:
            stack += [(node, depth, True), (right[node], depth + 1, False)]
            stack += [(left[node], depth + 1, False)]
    return places


def below(left, right, node):
    """How many leaves a node has below it."""
    count, stack = 0, [node]
    while stack:
        node = stack.pop()
        if left[node] < 0:
            count += 1
        else:
            stack += [left[node], right[node]]
    return count


class Texts:
    """What stands in the boxes of the tree whose nodes begin at `begin`."""

    def __init__(self, model, begin, feature_names, precision):
        self.arrays = {k: v[begin:] for k, v in model.arrays_.items() if k in NODE_ARRAYS}
        self.category_ptr = model.arrays_.get("category_ptr")
        self.categories = model.arrays_.get("categories")
        self.begin, self.precision = begin, precision
        self.outputs = model.arrays_["tree_output"]
        self.classes = getattr(model, "classes_", None)
        self.names = names_of(model, feature_names, model.n_features_in_)

    def number(self, value):
        return f"{value + 0.0:.{self.precision}g}"  # 0 for -0

    def measures(self, node, *names):
        """A line for each of the arrays that the model has."""
        return [
            f"{name} {self.number(self.arrays[name][node].item())}"
            for name in names
            if name in self.arrays
        ]

    def own_categories(self, node):
        if self.category_ptr is None:
            return []
        first, last = self.category_ptr[self.begin + node : self.begin + node + 2].tolist()
        return self.categories[first:last].tolist()

    def split(self, node):
        name = self.names[self.arrays["feature"][node].item()]
        own, threshold = self.own_categories(node), self.arrays["threshold"][node].item()
        if own:
            shown = [str(c) for c in own[:SHOWN_CATEGORIES]]
            shown += ["..."] * (len(own) > SHOWN_CATEGORIES)
            question = f"{name} in {{{', '.join(shown)}}}"
        elif threshold == -torch.inf:
            question = f"{name} is missing"  # all values go right
        else:
            question = f"{name} < {self.number(threshold)}"
        return "\n".join([question, *self.measures(node, "gain", "cover")])

    def edge(self, node, is_left):
        """Categories go right, what is less than the threshold goes left."""
        yes = is_left != bool(self.own_categories(node))
        missing = is_left == bool(self.arrays["default_left"][node])
        return ("yes" if yes else "no") + (", missing" if missing else "")

    def leaf(self, node):
        value = self.arrays["value"][node]
        if value.dim() == 0:
            text = self.number(value.item())
        else:
            text = "[" + ", ".join(self.number(v) for v in value.tolist()) + "]"
        return "\n".join([text, *self.measures(node, "cover")])

    def color(self, node, largest):
        """From red over white to blue: less than nothing, nothing, more."""
        value = self.arrays["value"][node]
        if value.dim() > 0 or largest == 0:
            return "white"
        share = value.item() / largest
        pale = 1 - 0.5 * abs(share)
        return (1, pale, pale) if share < 0 else (pale, pale, 1)

    def title(self, index):
        output = int(self.outputs[index])
        vectors = self.arrays["value"].dim() == 2
        if self.classes is None or len(self.classes) < 3 or vectors:
            return f"tree {index}"
        return f"tree {index}, class {self.classes[output]}"


NODE_ARRAYS = ("feature", "threshold", "default_left", "value", "gain", "cover")
