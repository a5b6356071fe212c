"""Our training steps compared with PyTorch's, interleaved in one run: `tests/peers/run train [--json]`.

Both sides run the same computation on the same number of threads, each in its own process, in turn; the best
step of each side counts. Each line also reports the peak resident memory of both.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time

CASES = [
    (net, step, batch)
    for step in ("teacher", "student")
    for net, batch in (("resnet20", 32), ("resnet20", 64), ("resnet56", 32), ("resnet56", 64), ("resnet18", 8))
]
SKIPS = 3


def peer(net, step, batch, threads, seconds):
    """Best images/s of one case in PyTorch."""
    import torch
    import torch.nn as nn
    import torch.nn.functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(1)
    small = [(16, 1), (32, 1), (64, 1)]
    stem, stages, size, classes = {
        "resnet20": ((3, 1, 1, False), [(c, 3) for c, _ in small], 32, 10),
        "resnet56": ((3, 1, 1, False), [(c, 9) for c, _ in small], 32, 10),
        "resnet18": ((7, 2, 3, True), [(64, 2), (128, 2), (256, 2), (512, 2)], 224, 1000),
    }[net]

    class ConvNorm(nn.Sequential):
        def __init__(self, c_in, c_out, k, stride, pad):
            super().__init__(nn.Conv2d(c_in, c_out, k, stride, pad, bias=False), nn.BatchNorm2d(c_out))

    class Block(nn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            self.first, self.second = ConvNorm(c_in, c_out, 3, stride, 1), ConvNorm(c_out, c_out, 3, 1, 1)
            self.shortcut = ConvNorm(c_in, c_out, 1, 2, 0) if stride == 2 else None
            self.c_in, self.c_out, self.stride = c_in, c_out, stride

        def forward(self, x):
            return self.second(F.relu(self.first(x))) + (self.shortcut(x) if self.shortcut else x)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            k, stride, pad, self.pooled = stem
            c = stages[0][0]
            self.stem = ConvNorm(3, c, k, stride, pad)
            self.blocks = nn.ModuleList()
            for stage, (channels, count) in enumerate(stages):
                for i in range(count):
                    self.blocks.append(Block(c, channels, 2 if stage and not i else 1))
                    c = channels
            self.head = nn.Linear(c, classes)

        def first(self, x):
            x = F.relu(self.stem(x))
            return F.max_pool2d(x, 3, 2, 1) if self.pooled else x

        def nodes(self, x):
            nodes = [self.first(x)]
            for block in self.blocks:
                nodes.append(F.relu(block(nodes[-1])))
            return nodes, self.head(nodes[-1].mean((2, 3)))

    class Proxy(nn.Module):
        def __init__(self, source, c_in, c_out, scale):
            super().__init__()
            self.source, self.scale, self.unit = source, scale, ConvNorm(c_in, c_out, 1, 1, 0)

        def forward(self, x):
            s = self.scale
            return self.unit(F.max_pool2d(x, s + 1, s, s // 2) if s > 1 else x)

    x, labels = torch.randn(batch, 3, size, size), torch.randint(0, classes, (batch,))

    if step == "teacher":
        model = Net()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9, weight_decay=5e-4)

        def run():
            optimiser.zero_grad()
            F.cross_entropy(model.nodes(x)[1], labels).backward()
            optimiser.step()

    else:
        backbone, teacher = Net(), Net().eval()
        for p in backbone.parameters():
            p.requires_grad_(False)
        count = len(backbone.blocks)
        shapes = [(stages[0][0], 1)]
        for block in backbone.blocks:
            shapes.append((block.c_out, shapes[-1][1] * block.stride))
        proxies = nn.ModuleList()
        mask, costs = torch.full((count, SKIPS + 1), -1e9), torch.zeros(count, SKIPS + 1)
        into = torch.zeros(count, SKIPS + 1, dtype=torch.long)
        leaving = torch.full((count, SKIPS + 1), count * (SKIPS + 1))
        for l in range(1, count + 1):
            mask[l - 1, 0], costs[l - 1, 0], into[l - 1, 0] = 0, 1 / count, l - 1
            if l < count:
                leaving[l - 1, 0] = l * (SKIPS + 1)
            cell = nn.ModuleList()
            for j in range(min(SKIPS, l)):
                source = l - 1 - j
                scale = shapes[l][1] // shapes[source][1]
                cell.append(Proxy(source, shapes[source][0], shapes[l][0], scale))
                mask[l - 1, 1 + j], costs[l - 1, 1 + j], into[l - 1, 1 + j] = 0, 0.05 / count, source
                if l + 1 + j <= count:
                    leaving[l - 1, 1 + j] = (l + j) * (SKIPS + 1) + 1 + j
            proxies.append(cell)
        gates = torch.full((count, SKIPS + 1), -2.0)
        gates[:, 0] = 2
        gates = nn.Parameter(gates)
        head = nn.Linear(shapes[-1][0], classes)
        not_last = torch.ones(count, 1)
        not_last[-1] = 0
        optimiser = torch.optim.SGD(
            [
                {"params": [*proxies.parameters(), *head.parameters()], "weight_decay": 5e-4},
                {"params": [gates], "weight_decay": 0},
            ],
            lr=0.001,
            momentum=0.9,
        )

        def cell(l, nodes, alpha, detached):
            take = (lambda t: t.detach()) if detached else (lambda t: t)
            y = alpha[l, 0] * backbone.blocks[l](take(nodes[l]))
            for j, proxy in enumerate(proxies[l]):
                y = y + alpha[l, 1 + j] * proxy(take(nodes[proxy.source]))
            return F.relu(y)

        def complexity(alpha):
            off = 1 - alpha
            p_in = torch.cat([torch.zeros(1), off.prod(1)])[into]
            p_out = torch.cat([off.flatten(), torch.ones(1)])[leaving].prod(1, keepdim=True) * not_last
            return (costs * alpha * (1 - p_in) * (1 - p_out)).sum()

        def run():
            optimiser.zero_grad()
            with torch.no_grad():
                targets, target_logits = teacher.nodes(x)
            alpha = torch.softmax(gates + mask, 1)
            nodes, matching = [backbone.first(x)], 0
            for l in range(count):
                nodes.append(cell(l, nodes, alpha, False))
                matching = matching + F.mse_loss(cell(l, nodes, alpha, True), targets[l + 1])
            logits = head(nodes[-1].mean((2, 3)))
            matching = (matching + F.mse_loss(logits, target_logits)) / count
            (F.cross_entropy(logits, labels) + 0.3 * complexity(alpha) + 10 * matching).backward()
            optimiser.step()

    start, best, rounds = time.perf_counter(), float("inf"), 0
    while rounds < 4 or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        run()
        best, rounds = min(best, time.perf_counter() - before), rounds + 1
    return {"peer": f"PyTorch {torch.__version__}", "peer_img_s": round(batch / best, 1)}


def measured(command, environment):
    """Runs a command that prints one JSON line; returns it with the process's peak memory in MiB."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, text=True)
    line = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        sys.exit(f"train: {' '.join(command)} ended with status {child.returncode}")
    return json.loads(line), usage.ru_maxrss / 1024


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--json", action="store_true", help="one JSON line per case instead of a table")
    p.add_argument("--bench", required=True, help="the compiled `train` bench")
    p.add_argument("--threads", type=int, default=os.cpu_count())
    p.add_argument("--seconds", type=float, default=4, help="per side and round")
    p.add_argument("--rounds", type=int, default=3, help="number of rounds that the sides take turns")
    p.add_argument("--net")
    p.add_argument("--step", choices=["teacher", "student"])
    p.add_argument("--batch", type=int)
    p.add_argument("--peer-only", action="store_true", help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.peer_only:
        print(json.dumps(peer(a.net, a.step, a.batch, a.threads, a.seconds)))
        return
    # Both sides get the same number of threads through the variables they honour.
    environment = dict(os.environ, RAYON_NUM_THREADS=str(a.threads), OMP_NUM_THREADS=str(a.threads))
    for net, step, batch in CASES:
        if (a.net or net, a.step or step, a.batch or batch) != (net, step, batch):
            continue
        case = ["--net", net, "--step", step, "--batch", str(batch), "--seconds", str(a.seconds)]
        theirs = [sys.executable, __file__, "--bench", a.bench, "--peer-only", "--threads", str(a.threads), *case]
        line, memory = {"net": net, "step": step, "batch": batch, "threads": a.threads}, {}
        for _ in range(a.rounds):
            for side, command in (("ours", [a.bench, *case]), ("peer", theirs)):
                result, peak = measured(command, environment)
                key = f"{side}_img_s"
                line[key] = max(line.get(key, 0), result[key])
                line["peer"] = result.get("peer", line.get("peer"))
                memory[side] = min(memory.get(side, peak), peak)
        line["ratio"] = round(line["ours_img_s"] / line["peer_img_s"], 2)
        line["ours_peak_mib"], line["peer_peak_mib"] = round(memory["ours"]), round(memory["peer"])
        if a.json:
            print(json.dumps(line), flush=True)
        else:
            print(
                f"{net:9} {step:8} batch {batch:3}  ours {line['ours_img_s']:7.1f} img/s  {line['peer']}"
                f" {line['peer_img_s']:7.1f} img/s  ratio {line['ratio']:.2f}"
                f"  peak {line['ours_peak_mib']} / {line['peer_peak_mib']} MiB",
                flush=True,
            )


if __name__ == "__main__":
    main()
