"""The step of a kernel's main loop, from its machine code: what one iteration executes.

A loop over tiles has loops within it, and branches for edges that most steps do not take. Of all
ways through the main loop, the step is one that executes the most instructions of tensor cores, and
of these one with the fewest others.
"""

from collections import Counter

import sass


class Block:
    def __init__(self):
        self.mix = Counter()
        self.next = []  # indices of the blocks that may follow
        self.target = None
        self.ends = self.jumps = False  # falls through to nothing; jumps by a table


def blocks_of(listing):
    """[Block] of a function in nvdisasm's words, in the order of addresses."""
    code, called = [], set()
    for address, guard, words in sass.statements(listing):
        name = words[0].split(".")[0]
        target, ends = None, False
        if name in ("BRA", "JMP"):
            target = sass.address_in(words)
            ends = not guard and len(words) == 2  # no predicate before or behind the name
        elif name in ("EXIT", "RET", "BRX", "KILL"):
            ends = not guard
        elif name == "CALL":
            called.add(sass.address_in(words))
        code.append((address, name, target, ends))
    leaders = {code[0][0]} | {target for *_, target, _ in code if target is not None}
    blocks, starts = [], {}
    fresh = True
    for address, name, target, ends in code:
        if fresh or address in leaders:
            starts[address] = len(blocks)
            blocks.append(Block())
        block = blocks[-1]
        block.mix[sass.CLASS_OF.get(name, "integer")] += 1
        block.target, block.ends, block.jumps = target, ends, name == "BRX"
        fresh = target is not None or ends
    for i, block in enumerate(blocks):
        if not block.ends and i + 1 < len(blocks):
            block.next.append(i + 1)
        if block.target is not None and starts[block.target] not in block.next:
            block.next.append(starts[block.target])
    # The listing does not say where a table of jumps leads: to what nothing else leads to.
    known = {0} | {starts[a] for a in called if a in starts} | {j for b in blocks for j in b.next}
    for block in blocks:
        if block.jumps:
            block.next += sorted(set(range(len(blocks))) - known)
    return blocks


def dominators(blocks):
    """For each block the set of those that every way to it passes; empty where none leads to it."""
    before = [[] for _ in blocks]
    for i, block in enumerate(blocks):
        for j in block.next:
            before[j].append(i)
    everything = set(range(len(blocks)))
    found = [everything] * len(blocks)
    found[0] = {0}
    changed = True
    while changed:
        changed = False
        for i in range(1, len(blocks)):
            ways = [found[j] for j in before[i]]
            new = (set.intersection(*ways) if ways else everything) | {i}
            if new != found[i]:
                found[i], changed = new, True
    return found, before


def loops_of(blocks):
    """{first block: the set of its blocks} of all loops that have one entry."""
    dominating, before = dominators(blocks)
    loops = {}
    for i, block in enumerate(blocks):
        for head in block.next:
            if head not in dominating[i]:
                continue
            body, left = loops.setdefault(head, {head}), [i]
            while left:
                j = left.pop()
                if j not in body:
                    body.add(j)
                    left += before[j]
    return loops


def shortest(blocks, loops, head, body, rounds):
    """The mix of the step from `head` back to it. Loops within count `rounds` times where they hold
    instructions of tensor cores, else once."""
    inner = {h: b for h, b in loops.items() if h in body and h != head and b < body}
    outer = {h: b for h, b in inner.items() if not any(b < o for o in inner.values())}
    within = {i: h for h, b in outer.items() for i in b}  # collapsed to their first blocks
    memo = {}

    def cost(mix):
        return (-mix["matrix"], sum(mix.values()))

    def node_mix(i):
        if i not in outer:
            return blocks[i].mix
        once = shortest(blocks, loops, i, outer[i], rounds)
        return Counter({kind: n * (rounds if once["matrix"] else 1) for kind, n in once.items()})

    def way(i):
        """The best mix from node i to the end of the iteration; None where it leaves the loop."""
        if i in memo:
            return memo[i]
        memo[i] = None
        members = outer.get(i, {i})
        best = None
        for j in {within.get(k, k) for m in members for k in blocks[m].next} - {i}:
            rest = Counter() if j == head else way(j) if j in body else None
            if rest is not None and (best is None or cost(rest) < cost(best)):
                best = rest
        memo[i] = None if best is None else best + node_mix(i)
        return memo[i]

    if any(head in blocks[m].next for m in [head]):  # a loop of one block
        return blocks[head].mix
    return way(head) or Counter()


def main_step(listing, rounds=1):
    """The mix of a step of the loop with the most instructions of tensor cores; of equal ones the
    shortest. `rounds`: of the loops within it."""
    blocks = blocks_of(listing)
    loops = loops_of(blocks)
    steps = [
        shortest(blocks, loops, head, body, rounds)
        for head, body in loops.items()
        if not any(body < other for other in loops.values())
    ]
    return min(steps, key=lambda mix: (-mix["matrix"], sum(mix.values())), default=Counter())
